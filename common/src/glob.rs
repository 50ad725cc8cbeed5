//! Patterns of names in settings.

/// Whether `name` matches `pattern`, in which `*` represents any text, including none.
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    // The earliest match is as good as a later one: it leaves the most for the parts behind.
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        for (pattern, name, expected) in [
            ("alerts-fire", "alerts-fire", true),
            ("alerts-fire", "alerts-fire2", false),
            ("alerts-*", "alerts-", true),
            ("alerts-*", "alert-fire", false),
            ("*", "", true),
            ("*-failed", "login-failed", true),
            ("*-failed", "login-failed-twice", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
            ("*ü*", "aüb", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
