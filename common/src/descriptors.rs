//! The limit on open files and sockets.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than any role needs. Some systems report a limit of billions.
const ENOUGH: u64 = 65_536;

/// The limit in force; `None` if there is none.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the soft limit towards the hard one, so that a burst of files or connections does not stop the roles. Returns
/// the limit now in force; `None` if there is none.
///
/// # Errors
/// The operating system refused; the limit is unchanged.
pub fn raise_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current else { return Ok(None) };
    let wanted = raised(current, limit.maximum);
    if wanted > current {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
    }
    Ok(Some(wanted))
}

/// Never below `current`.
fn raised(current: u64, maximum: Option<u64>) -> u64 {
    maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH)).max(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_allowed_and_enough_and_never_lowered() {
        assert_eq!(raised(1_024, Some(4_096)), 4_096);
        assert_eq!(raised(1_024, Some(1 << 30)), ENOUGH);
        assert_eq!(raised(1_024, None), ENOUGH);
        assert_eq!(raised(1 << 20, Some(1 << 20)), 1 << 20);
        let holds = raise_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, holds);
    }
}
