//! The memory allocator, and how soon it gives memory back.

/// Many small allocations by few threads: measurably cheaper here than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3, which the binding has no name for.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long free memory is kept, in milliseconds. With mimalloc's own second a third of what a distributor peaks at is free
/// memory; with none, giving it back and getting it again takes half as much time as the work
/// (bench/runs/2026-11-24-distribute.md).
const PURGE_DELAY_MS: std::ffi::c_long = 200;

/// Sets how soon free memory is given back, unless the environment says so (`MIMALLOC_PURGE_DELAY`). To be called before there
/// are threads.
#[expect(unsafe_code, reason = "a function of mimalloc that the binding does not wrap")]
pub fn configure() {
    // SAFETY: sets a number that mimalloc reads when it has freed memory. Only this thread is there to read it now.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options are told apart by their place in a list that mimalloc may change: its own default shows which one this is. The
    /// environment is asked once in a process, so this test runs itself again under another.
    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn the_purge_delay_is_set_unless_the_environment_says_so() {
        // SAFETY: reads a number; no other test writes it.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        if let Ok(told) = std::env::var("MIMALLOC_PURGE_DELAY") {
            configure();
            assert_eq!(get().to_string(), told);
            return;
        }
        assert_eq!(get(), 1_000);
        configure();
        assert_eq!(get(), PURGE_DELAY_MS);
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "allocator::tests::the_purge_delay_is_set_unless_the_environment_says_so"]);
        let output = again.env("MIMALLOC_PURGE_DELAY", "77").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    }
}
