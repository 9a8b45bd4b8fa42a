//! How many files this process may have open. The soft limit is often 1,024, for the sake of programs that use `select`; sockets and
//! files of a thousand pods need more, and the hard limit is what the system is willing to give.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one. Answers with what holds now; `None`: there is no limit.
///
/// Changes the whole process; children inherit it. What cannot be raised stays.
pub fn raise_open_files_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum || setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum;
    }
    tracing::warn!(?current, ?maximum, "cannot raise the limit on open files");
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_holds() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_open_files_limit(), hard);
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: hard, maximum: hard });
    }
}
