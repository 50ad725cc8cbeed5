//! Ages of batches by event type: `flush.ages`.

use std::time::Duration;

use super::values::duration;
use crate::glob;

/// The maximum age of a batch, by the event types of its rows. The first matching pattern decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeAges(Vec<(String, Duration)>);

impl TypeAges {
    /// Reads `pattern=age[,pattern=age]`, such as `alerts-*=10s,*-failed=1m`.
    ///
    /// # Errors
    /// An entry of another form, or an age of 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// The maximum age for a type, given its name as in folder names (escaped); `None` if no pattern matches.
    pub fn for_type(&self, name: &str) -> Option<Duration> {
        self.0.iter().find(|(pattern, _)| glob::fits(pattern, name)).map(|(_, age)| *age)
    }

    pub fn shortest(&self) -> Option<Duration> {
        self.0.iter().map(|(_, age)| *age).min()
    }

    /// The patterns whose age is longer than `max_age` and so would never apply.
    pub(super) fn longer_than(&self, max_age: Duration) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, age)| *age > max_age).map(|(pattern, _)| pattern.as_str())
    }
}

fn entry(text: &str) -> Result<(String, Duration), String> {
    let wrong = || format!("'{}' is not pattern=age, such as alerts-*=10s", text.trim());
    // A pattern has no `=`: folder names have it escaped.
    let (pattern, age) = text.split_once('=').ok_or_else(wrong)?;
    let (pattern, age) = (pattern.trim(), duration(age.trim())?);
    match (pattern, age) {
        ("", _) => Err(wrong()),
        (_, Duration::ZERO) => Err(format!("the age of '{pattern}' must be longer than 0")),
        _ => Ok((pattern.to_owned(), age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_invalid_list_of_ages_is_refused() {
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
