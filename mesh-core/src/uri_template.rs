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
