//! A key run: the keys of one batch with their log times, stored beside it, so that the window can be rebuilt without
//! reading the log (about a fifteenth of the bytes).
//!
//! Format, little endian: `"EDKEYS01" | section count u32 | sections | xxh3-64 of all before`. A section is
//! `base time i64 | count u32 | count * (fingerprint u128, time - base u32)`, sorted by fingerprint; one section spans
//! at most 2³² ms.

#[cfg(feature = "fuzz")]
pub(super) mod fuzz;

use super::Overlay;
use super::epochs::EPOCH_MS;

const MAGIC: &[u8; 8] = b"EDKEYS01";
/// Bytes of a key in a run.
const ENTRY_BYTES: usize = 20;
/// Bytes of a section besides its keys.
const SECTION_BYTES: usize = 12;
/// Bytes of a run besides its sections.
const FRAME_BYTES: usize = 20;
/// Each section takes 16 KiB of memory in a window, however few keys it has. This many span five centuries.
const MOST_SECTIONS: u32 = 4_096;

/// The most bytes of a run with `keys` keys: each in a section of its own.
pub(crate) fn most_bytes(keys: u64) -> u64 {
    keys.saturating_mul((ENTRY_BYTES + SECTION_BYTES) as u64).saturating_add(FRAME_BYTES as u64)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key run is damaged: {0}")]
pub(crate) struct KeyRunError(&'static str);

pub(crate) fn encode_key_run(overlay: &Overlay) -> Vec<u8> {
    let mut run = Vec::with_capacity(64 + overlay.len() * ENTRY_BYTES);
    run.extend_from_slice(MAGIC);
    let sections = u32::try_from(overlay.epochs.iter().len()).unwrap_or(u32::MAX);
    run.extend_from_slice(&sections.to_le_bytes());
    for (epoch, arrivals) in overlay.epochs.iter() {
        run.extend_from_slice(&(epoch * EPOCH_MS).to_le_bytes());
        run.extend_from_slice(&u32::try_from(arrivals.len()).unwrap_or(u32::MAX).to_le_bytes());
        arrivals.sorted(|entries| {
            for entry in entries {
                run.extend_from_slice(&entry.key().to_le_bytes());
                run.extend_from_slice(&entry.time.to_le_bytes());
            }
        });
    }
    let checksum = xxhash_rust::xxh3::xxh3_64(&run);
    run.extend_from_slice(&checksum.to_le_bytes());
    run
}

/// Calls `visit` with each key and its log time.
///
/// # Errors
/// The run is damaged. Nothing was visited then.
pub(crate) fn decode_key_run(run: &[u8], mut visit: impl FnMut(u128, i64)) -> Result<(), KeyRunError> {
    let (body, checksum) = run.split_last_chunk::<8>().ok_or(KeyRunError("too short"))?;
    if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*checksum) {
        return Err(KeyRunError("wrong checksum"));
    }
    // A checksum is no protection from a writer to the bucket: the whole run is checked before a key is visited.
    for_each_section(body, |base_ms, _| {
        let last_ms = base_ms.checked_add(i64::from(u32::MAX));
        last_ms.map(|_| ()).ok_or(KeyRunError("a time is out of range"))
    })?;
    for_each_section(body, |base_ms, entries| {
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let (key, after) = take::<16>(entry)?;
            let (offset_ms, _) = take::<4>(after)?;
            visit(u128::from_le_bytes(key), base_ms + i64::from(u32::from_le_bytes(offset_ms)));
        }
        Ok(())
    })
}

/// Calls `visit` with base time and entries of each section.
fn for_each_section(
    body: &[u8],
    mut visit: impl FnMut(i64, &[u8]) -> Result<(), KeyRunError>,
) -> Result<(), KeyRunError> {
    let rest = body.strip_prefix(MAGIC).ok_or(KeyRunError("not a key run of this version"))?;
    let (sections, mut rest) = take::<4>(rest)?;
    let sections = u32::from_le_bytes(sections);
    if sections > MOST_SECTIONS {
        return Err(KeyRunError("too many sections"));
    }
    for _ in 0..sections {
        let (base_ms, after) = take::<8>(rest)?;
        let (count, after) = take::<4>(after)?;
        let base_ms = i64::from_le_bytes(base_ms);
        let bytes = (u32::from_le_bytes(count) as usize).checked_mul(ENTRY_BYTES).ok_or(KeyRunError("too long"))?;
        let (entries, after) = after.split_at_checked(bytes).ok_or(KeyRunError("cut off"))?;
        visit(base_ms, entries)?;
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(KeyRunError("has bytes after its end")) }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), KeyRunError> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(KeyRunError("cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_run_is_refused() {
        let mut overlay = Overlay::default();
        for key in 0..100_u128 {
            overlay.put(key << 100, 5_000 + i64::try_from(key).unwrap_or(0) * 50);
        }
        let run = encode_key_run(&overlay);
        let mut seen = 0;
        assert_eq!(decode_key_run(&run, |_, _| seen += 1), Ok(()));
        assert_eq!(seen, 100);
        for at in [0, 8, 20, run.len() / 2, run.len() - 1] {
            let mut damaged = run.clone();
            damaged[at] ^= 1;
            assert!(decode_key_run(&damaged, |_, _| {}).is_err(), "byte {at}");
        }
        assert!(decode_key_run(&run[..run.len() - 1], |_, _| {}).is_err());
        assert!(decode_key_run(&[], |_, _| {}).is_err());
    }

    /// A run with a section of one key for each base, then `behind`, and the right checksum.
    fn sealed(bases_ms: &[i64], behind: &[u8]) -> Vec<u8> {
        let mut run = [MAGIC.as_slice(), &u32::try_from(bases_ms.len()).unwrap_or(0).to_le_bytes()].concat();
        for base_ms in bases_ms {
            run.extend([&base_ms.to_le_bytes()[..], &1_u32.to_le_bytes(), &[7; 16], &9_u32.to_le_bytes()].concat());
        }
        run.extend_from_slice(behind);
        let checksum = xxhash_rust::xxh3::xxh3_64(&run);
        [run, checksum.to_le_bytes().to_vec()].concat()
    }

    #[test]
    fn a_forged_run_is_refused_before_a_key_is_visited() {
        let visited = |run: &[u8]| {
            let mut times = Vec::new();
            let decoded = decode_key_run(run, |_, time_ms| times.push(time_ms));
            (decoded.is_ok(), times)
        };
        assert_eq!(visited(&sealed(&[0, EPOCH_MS], b"")), (true, vec![9, EPOCH_MS + 9]));
        let last_ms = i64::MAX - i64::from(u32::MAX);
        assert_eq!(visited(&sealed(&[0, last_ms], b"")), (true, vec![9, last_ms + 9]));
        let [most, more] = [MOST_SECTIONS, MOST_SECTIONS + 1].map(|count| vec![0; count as usize]);
        assert_eq!(visited(&sealed(&most, b"")).1.len(), most.len());
        for run in [sealed(&[0], b"x"), sealed(&[0, last_ms + 1], b""), sealed(&more, b"")] {
            assert_eq!(visited(&run), (false, vec![]));
        }
    }

    #[test]
    fn a_run_is_largest_where_each_key_has_a_section_of_its_own() {
        let mut overlay = Overlay::default();
        for number in 0..10_u32 {
            overlay.put(u128::from(number) << 100, i64::from(number) * EPOCH_MS);
        }
        assert_eq!(encode_key_run(&overlay).len() as u64, most_bytes(10));
        overlay.put(1, 0);
        assert!((encode_key_run(&overlay).len() as u64) < most_bytes(11));
    }
}
