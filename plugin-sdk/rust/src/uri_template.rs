//! URI templates of RFC 6570, level 1: `{name}` stands for one value of unreserved characters.

/// A part of a template.
enum Part<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

fn parse(template: &str) -> Result<Vec<Part<'_>>, &'static str> {
    const UNPAIRED: &str = "every { needs a } after it, and every } a { before it";
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(UNPAIRED)?;
        if literal.contains('}') {
            return Err(UNPAIRED);
        }
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(good) {
            return Err("between { and } stands one name of letters, digits, _ and .");
        }
        let same = |part: &Part<'_>| matches!(part, Part::Variable(own) if *own == name);
        if parts.iter().any(same) {
            return Err("each variable stands in it once");
        }
        if literal.is_empty() && !parts.is_empty() {
            return Err("between two variables stands some text, or nobody can tell them apart");
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        parts.push(Part::Variable(name));
        rest = after;
    }
    if rest.contains('}') {
        return Err(UNPAIRED);
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Ok(parts)
}

/// Checks a template; the error is the rule that it breaks.
pub(crate) fn check(template: &str) -> Result<(), &'static str> {
    let parts = parse(template)?;
    if !parts.iter().any(|part| matches!(part, Part::Variable(_))) {
        return Err("it has no {variable}: make it a resource");
    }
    Ok(())
}

/// The values of the variables in a URI, percent-decoded; `None` when the URI is none of the
/// template's.
pub(crate) fn matches(template: &str, uri: &str) -> Option<Vec<(String, String)>> {
    let mut values = Vec::new();
    let mut rest = uri;
    let mut parts = parse(template).ok()?.into_iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Literal(text) => rest = rest.strip_prefix(text)?,
            Part::Variable(name) => {
                let value_char = |c: u8| c.is_ascii_alphanumeric() || b"-._~%".contains(&c);
                let longest = rest.bytes().position(|c| !value_char(c));
                let mut end = longest.unwrap_or(rest.len());
                // What follows may be made of characters that a value could hold, too.
                if let Some(Part::Literal(next)) = parts.peek() {
                    let found = rest.get(1..)?.find(next)? + 1;
                    if found > end {
                        return None;
                    }
                    end = found;
                }
                if end == 0 {
                    return None;
                }
                values.push((name.to_owned(), decode(rest.get(..end)?)?));
                rest = rest.get(end..)?;
            }
        }
    }
    rest.is_empty().then_some(values)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |c: Option<u8>| char::from(c?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    //! Templates, URIs and values.

    use super::*;

    fn values(template: &str, uri: &str) -> Option<Vec<String>> {
        let found = matches(template, uri)?;
        Some(found.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn values_are_found_and_decoded() {
        for (template, uri, expected) in [
            ("time://zone/{zone}", "time://zone/UTC", Some(vec!["UTC"])),
            (
                "time://zone/{zone}",
                "time://zone/Europe%2FBerlin",
                Some(vec!["Europe/Berlin"]),
            ),
            ("a://{x}.{y}", "a://1.2.3", Some(vec!["1", "2.3"])),
            ("a://{x}/end", "a://1/end", Some(vec!["1"])),
            ("time://zone/{zone}", "time://zone/", None),
            ("time://zone/{zone}", "time://zone/Europe/Berlin", None),
            ("a://{x}/end", "a://1/2/end", None),
            ("a://{x}", "a://%zz", None),
            ("a://{x}/b", "a://é/b", None),
        ] {
            let expected: Option<Vec<String>> =
                expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(values(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn templates_that_cannot_work_are_refused_with_the_rule() {
        for (bad, rule) in [
            ("a://{x", "every {"),
            ("a://x}", "every {"),
            ("a://{}", "one name"),
            ("a://{+x}", "one name"),
            ("a://{x}/{x}", "once"),
            ("a://{x}{y}", "between two"),
            ("a://x", "no {variable}"),
        ] {
            let error = check(bad).err().unwrap_or("accepted");
            assert!(error.contains(rule), "{bad}: {error}");
        }
        assert_eq!(check("a://{x}/{y}"), Ok(()));
    }
}
