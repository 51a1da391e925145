//! URI templates of RFC 6570, level 1: `{name}` stands for one value of unreserved characters.

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("URI template {given:?} is not valid: {rule}")]
pub struct TemplateError {
    /// The text that was given, shortened to 80 characters.
    pub given: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// A part of a template.
enum Part<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

fn parse(template: &str) -> Result<Vec<Part<'_>>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        if literal.contains('}') {
            return Err("a } has no { before it");
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err("a { has no } after it");
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(valid) {
            return Err(
                "between { and } stands one name of letters, digits, _ and . (RFC 6570, \
                        level 1: no operators, no lists)",
            );
        }
        if parts
            .iter()
            .any(|part| matches!(part, Part::Variable(own) if *own == name))
        {
            return Err("each variable stands in it once");
        }
        if literal.is_empty() && matches!(parts.last(), Some(Part::Variable(_))) {
            return Err("between two variables stands some text, or nobody can tell them apart");
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        parts.push(Part::Variable(name));
        rest = after;
    }
    if rest.contains('}') {
        return Err("a } has no { before it");
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Ok(parts)
}

/// Checks a template.
///
/// # Errors
/// [`TemplateError`] with the rule that it breaks.
pub fn validate(template: &str) -> Result<(), TemplateError> {
    parse(template).map(|_| ()).map_err(|rule| TemplateError {
        given: template.chars().take(80).collect(),
        rule,
    })
}

/// The values of a template's variables in a URI, percent-decoded; `None` when the URI is none of
/// the template's, or the template is not valid. A value is not empty, and ends where the text
/// after its variable first occurs.
#[must_use]
pub fn matches(template: &str, uri: &str) -> Option<Vec<(String, String)>> {
    let parts = parse(template).ok()?;
    let mut values = Vec::new();
    let mut rest = uri;
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Literal(text) => rest = rest.strip_prefix(text)?,
            Part::Variable(name) => {
                let length = rest
                    .bytes()
                    .position(|c| !is_value(c))
                    .unwrap_or(rest.len());
                let longest = rest.get(..length)?;
                let value = match parts.peek() {
                    // What follows may be made of characters that a value could hold, too.
                    Some(Part::Literal(next)) => {
                        let end = rest.get(1..)?.find(next)? + 1;
                        longest.get(..end)?
                    }
                    _ => longest,
                };
                if value.is_empty() {
                    return None;
                }
                values.push((name.to_owned(), percent_decode(value)?));
                rest = rest.get(value.len()..)?;
            }
        }
    }
    rest.is_empty().then_some(values)
}

/// Unreserved characters, and `%` of percent-encoded ones (RFC 3986, section 2).
fn is_value(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~%".contains(&c)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |c: Option<u8>| char::from(c?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        decoded.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(template: &str, uri: &str) -> Option<Vec<String>> {
        let values = matches(template, uri)?;
        Some(
            values
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        )
    }

    #[test]
    fn variables_take_their_values() {
        for (template, uri, expected) in [
            ("time://now", "time://now", Some(vec![])),
            (
                "time://zone/{name}",
                "time://zone/Berlin",
                Some(vec!["name=Berlin"]),
            ),
            ("t://{a}/{b}", "t://x/y", Some(vec!["a=x", "b=y"])),
            (
                "t://{a}-{b}.txt",
                "t://x-y-z.txt",
                Some(vec!["a=x", "b=y-z"]),
            ),
            (
                "t://{a}",
                "t://Europe%2FBerlin%20%C3%A9",
                Some(vec!["a=Europe/Berlin é"]),
            ),
            ("t://{a}", "t://", None),
            ("t://{a}", "t://x/y", None),
            ("t://{a}/end", "t://x/END", None),
            ("t://{a}", "t://%zz", None),
            ("t://{a}", "t://%f", None),
            ("t://{a}", "t://%ff", None),
            ("t://{a", "t://x", None),
            ("t://now", "t://now?", None),
        ] {
            let expected: Option<Vec<String>> =
                expected.map(|list| list.into_iter().map(str::to_owned).collect());
            assert_eq!(values(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn a_wrong_template_is_told_its_rule() {
        for (template, rule) in [
            ("a://{", "a { has no } after it"),
            ("a://}", "a } has no { before it"),
            ("a://}{b}", "a } has no { before it"),
            ("a://{}", "between { and } stands one name"),
            ("a://{b,c}", "between { and } stands one name"),
            ("a://{?b}", "between { and } stands one name"),
            ("a://{b}{c}", "between two variables stands some text"),
            ("a://{b}/{b}", "each variable stands in it once"),
        ] {
            let error = validate(template).expect_err(template);
            assert!(error.rule.starts_with(rule), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_template_that_was_filled_in_is_read_back(a in "[A-Za-z0-9_~]{1,9}", b in "[A-Za-z0-9]{1,9}") {
            let uri = format!("t://{a}/x/{b}");
            let expected = vec![("a".to_owned(), a), ("b".to_owned(), b)];
            prop_assert_eq!(matches("t://{a}/x/{b}", &uri), Some(expected));
        }

        #[test]
        fn no_text_panics(template in "[a{}%:/é.]{0,20}", uri in "[a%2fé:/.]{0,20}") {
            let _ = matches(&template, &uri);
        }
    }
}
