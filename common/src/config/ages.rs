//! Ages of batches by event type: `flush.ages`.

use std::time::Duration;

use super::values::duration;

/// How old a batch may become that holds a row of certain types. The first pattern that fits decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeAges(Vec<(String, Duration)>);

impl TypeAges {
    /// Reads `pattern=age[,pattern=age]`, such as `alerts-*=10s,*-failed=1m`.
    ///
    /// # Errors
    /// An entry of another form, and an age of 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The age for a type as it stands in folder names, escapes included; `None` if no pattern fits.
    pub fn for_type(&self, name: &str) -> Option<Duration> {
        self.0.iter().find(|(pattern, _)| is_match(pattern, name)).map(|(_, age)| *age)
    }

    pub fn shortest(&self) -> Option<Duration> {
        self.0.iter().map(|(_, age)| *age).min()
    }

    /// Those that are longer than `max_age`, which would never come to bear.
    pub(super) fn longer_than(&self, max_age: Duration) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, age)| *age > max_age).map(|(pattern, _)| pattern.as_str())
    }
}

fn entry(text: &str) -> Result<(String, Duration), String> {
    let wrong = || format!("'{}' is not pattern=age, such as alerts-*=10s", text.trim());
    // No `=` in a pattern: folder names have it escaped.
    let (pattern, age) = text.split_once('=').ok_or_else(wrong)?;
    let (pattern, age) = (pattern.trim(), duration(age.trim())?);
    match (pattern, age) {
        ("", _) => Err(wrong()),
        (_, Duration::ZERO) => Err(format!("the age of '{pattern}' must be longer than 0")),
        _ => Ok((pattern.to_owned(), age)),
    }
}

/// Whether `name` fits `pattern`, in which `*` stands for any text, also none.
fn is_match(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    // What comes first is as good as what comes later: it leaves the most for the parts behind.
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
    fn a_star_stands_for_any_text() {
        for (pattern, name, fits) in [
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
            assert_eq!(is_match(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_pattern_that_fits_decides() -> Result<(), String> {
        let ages = TypeAges::parse("alerts-test=20s, alerts-*=5s,*-failed = 1m")?;
        let age = |name| ages.for_type(name).map(|age| age.as_secs());
        assert_eq!((age("alerts-test"), age("alerts-fire"), age("x-failed")), (Some(20), Some(5), Some(60)));
        assert_eq!((age("alerts"), ages.shortest()), (None, Some(Duration::from_secs(5))));
        assert_eq!((TypeAges::default().for_type("a"), TypeAges::default().shortest()), (None, None));
        Ok(())
    }

    #[test]
    fn what_is_no_list_of_ages_is_refused() {
        for (text, part) in [
            ("alerts-*", "is not pattern=age"),
            ("=5s", "is not pattern=age"),
            ("a=5s,", "is not pattern=age"),
            ("a=soon", "'soon' is not a duration"),
            ("a=0s", "must be longer than 0"),
        ] {
            let error = TypeAges::parse(text).err().unwrap_or_default();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
