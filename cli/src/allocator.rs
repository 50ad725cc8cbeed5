//! The memory allocator, and how soon it returns memory to the system.

/// Many small allocations by few threads: measurably faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3, which the binding does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long free memory is kept, in milliseconds. With mimalloc's default of a second a third of a distributor's peak
/// is free memory. With none, returning and reacquiring memory takes half as much time as the work
/// (bench/runs/2026-11-24-distribute.md).
const PURGE_DELAY_MS: std::ffi::c_long = 200;

/// Sets how soon free memory is returned, unless the environment sets it (`MIMALLOC_PURGE_DELAY`). Must be called
/// before other threads start.
#[expect(unsafe_code, reason = "a function of mimalloc that the binding does not wrap")]
pub fn configure() {
    // SAFETY: sets a number that mimalloc reads after freeing memory. No other thread exists that could read it now.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options are identified by their place in a list that mimalloc may change: its own default identifies this one.
    /// The environment is read once in a process, so this test runs itself again under another one.
    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn the_purge_delay_is_set_unless_the_environment_says_so() {
        // SAFETY: reads a number; no other test writes it.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        if let Ok(delay) = std::env::var("MIMALLOC_PURGE_DELAY") {
            configure();
            assert_eq!(get().to_string(), delay);
            return;
        }
        assert_eq!(get(), 1_000);
        configure();
        assert_eq!(get(), PURGE_DELAY_MS);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "allocator::tests::the_purge_delay_is_set_unless_the_environment_says_so"]);
        let output = child.env("MIMALLOC_PURGE_DELAY", "77").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    }
}
