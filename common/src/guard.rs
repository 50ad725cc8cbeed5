//! Panics of a library that reads untrusted bytes become errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread will be caught and become an error, so that it is not reported as a bug.
#[must_use]
pub fn panic_is_caught() -> bool {
    IS_GUARDED.get()
}

/// Runs `work`. What it changed has to be valid, or dropped, after a panic.
///
/// # Errors
/// The message of its panic.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = IS_GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(outer);
    outcome.map_err(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        message.unwrap_or("it gave no reason").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let outcome = catch(|| {
            assert!(panic_is_caught());
            let _ = catch(|| ());
            assert!(panic_is_caught(), "the outer guard still holds");
            panic!("page {} is odd", 7);
        });
        assert_eq!(outcome, Err::<(), _>("page 7 is odd".to_owned()));
        assert_eq!((catch(|| 3), panic_is_caught()), (Ok(3), false));
    }
}
