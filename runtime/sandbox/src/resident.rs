//! [`release_idle_code`]: after its start a process needs little of the code that the start ran through.

use std::ffi::c_void;

/// Takes this program's own code out of the resident memory; what still runs comes back page by page, from the page cache. Starting
/// a cluster runs through most of a large binary once, the kernel maps sixteen pages for each that is touched, and keeps them.
/// Returns how many bytes of address space were released: 0 where the system does not say what is mapped.
///
/// # Source
/// madvise(2), `MADV_DONTNEED` of private file mappings that were never written.
pub fn release_idle_code() -> usize {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return 0 };
    let own = release_idle_code as fn() -> usize as usize;
    let Some((start, len)) = code_around(&maps, own) else { return 0 };
    #[expect(unsafe_code, reason = "madvise is offered as unsafe alone")]
    // SAFETY: the mapping is of a file, private, and not writable: its pages are those of the file, which is read again.
    let released = unsafe { rustix::mm::madvise(start as *mut c_void, len, rustix::mm::Advice::LinuxDontNeed) };
    released.map_or(0, |()| len)
}

/// Start and length of the mapping that holds an address, when it is code of a file that nobody can write to.
fn code_around(maps: &str, address: usize) -> Option<(usize, usize)> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let (from, to) = (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
        let is_code = fields.next()? == "r-xp";
        let of_file = fields.nth(2)? != "0";
        (is_code && of_file && (from..to).contains(&address)).then_some((from, to - from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_a_file_is_meant() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 77 /bin/podium
2000-5000 r-xp 00001000 fe:00 77 /bin/podium
5000-6000 rw-p 00004000 fe:00 77 /bin/podium
7000-9000 r-xp 00000000 00:00 0
9000-a000 rwxp 00001000 fe:00 78 /lib/odd.so
b000-c000 r-xp 00001000 fe:00 77 /bin/with a space (deleted)";
        for (address, wanted) in [
            (0x1800, None),
            (0x2000, Some((0x2000, 0x3000))),
            (0x4fff, Some((0x2000, 0x3000))),
            (0x5000, None),
            (0x7100, None),
            (0x9100, None),
            (0xb100, Some((0xb000, 0x1000))),
            (0xd000, None),
        ] {
            assert_eq!(code_around(maps, address), wanted, "{address:x}");
        }
        assert_eq!(code_around("nonsense\n1-\nx-y r-xp", 0), None);
    }

    /// Resident bytes of the mapping that holds this code.
    fn resident() -> usize {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let own = release_idle_code as fn() -> usize as usize;
        let is_own = |line: &str| code_around(line, own).is_some();
        let rss = smaps.lines().skip_while(|line| !is_own(line)).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    #[test]
    fn what_ran_once_is_no_longer_resident_and_what_runs_comes_back() {
        // Other tests run meanwhile, and bring code back.
        let falls = |_| {
            let before = resident();
            release_idle_code() >= before && resident() < before
        };
        assert!((0..10).any(falls));
    }
}
