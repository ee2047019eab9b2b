//! Error numbers of Linux.

use std::fmt;

use crate::names;

/// An error number of Linux: what a refused call returns.
///
/// Known are the numbers that a refused bind or connect can sensibly return, as x86, Arm and RISC-V number them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(u16);

const KNOWN: [(&str, u16); 24] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EBUSY", 16),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("EPROTO", 71),
    ("EOPNOTSUPP", 95),
    ("EAFNOSUPPORT", 97),
    ("EADDRINUSE", 98),
    ("EADDRNOTAVAIL", 99),
    ("ENETDOWN", 100),
    ("ENETUNREACH", 101),
    ("ECONNABORTED", 103),
    ("ECONNRESET", 104),
    ("ENOBUFS", 105),
    ("ETIMEDOUT", 110),
    ("ECONNREFUSED", 111),
    ("EHOSTUNREACH", 113),
];

impl Errno {
    /// The operation is not permitted: what refused calls return unless a filter says otherwise.
    pub const EPERM: Errno = Errno(1);
    /// Permission denied.
    pub const EACCES: Errno = Errno(13);
    /// Nobody listens there.
    pub const ECONNREFUSED: Errno = Errno(111);
    /// There is no way to the network.
    pub const ENETUNREACH: Errno = Errno(101);
    /// There is no way to the host.
    pub const EHOSTUNREACH: Errno = Errno(113);

    /// The known errors, by number.
    pub fn all() -> impl Iterator<Item = Errno> {
        KNOWN.iter().map(|(_, number)| Errno(*number))
    }

    /// The known error of that number.
    pub fn new(number: u16) -> Option<Errno> {
        KNOWN.iter().any(|(_, known)| *known == number).then_some(Errno(number))
    }

    /// The known error of that name, in any case.
    pub fn find(name: &str) -> Option<Errno> {
        KNOWN.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| Errno(*number))
    }

    /// The name of a known error that is nearest to a wrong name.
    pub fn nearest(name: &str) -> Option<&'static str> {
        names::nearest(name, KNOWN.iter().map(|(known, _)| *known))
    }

    /// The number, positive.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The name.
    pub fn name(self) -> &'static str {
        KNOWN.iter().find(|(_, number)| *number == self.0).map_or("", |(name, _)| *name)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_by_name_and_number() {
        assert_eq!(Errno::find("EACCES"), Some(Errno::EACCES));
        assert_eq!(Errno::find("econnrefused"), Some(Errno::ECONNREFUSED));
        assert_eq!(Errno::new(101), Some(Errno::ENETUNREACH));
        assert_eq!(Errno::new(0), None);
        assert_eq!(Errno::nearest("EACCESS"), Some("EACCES"));
        for errno in Errno::all() {
            assert_eq!(Errno::find(errno.name()), Some(errno));
        }
        assert_eq!(Errno::EHOSTUNREACH.to_string(), "EHOSTUNREACH");
        assert_eq!(Errno::EPERM.get(), 1);
    }
}
