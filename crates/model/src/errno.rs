//! Error numbers of Linux.

use std::fmt;

use crate::names;

/// An error number of Linux: what a refused call returns.
///
/// Numbered as x86, Arm and RISC-V number them (asm-generic/errno-base.h, errno.h); errno(3) says what each means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(u16);

/// By number. 41 and 58 have no name of their own.
#[rustfmt::skip]
const KNOWN: [(&str, u16); 131] = [
    ("EPERM", 1), ("ENOENT", 2), ("ESRCH", 3), ("EINTR", 4), ("EIO", 5), ("ENXIO", 6), ("E2BIG", 7), ("ENOEXEC", 8),
    ("EBADF", 9), ("ECHILD", 10), ("EAGAIN", 11), ("ENOMEM", 12), ("EACCES", 13), ("EFAULT", 14), ("ENOTBLK", 15),
    ("EBUSY", 16), ("EEXIST", 17), ("EXDEV", 18), ("ENODEV", 19), ("ENOTDIR", 20), ("EISDIR", 21), ("EINVAL", 22),
    ("ENFILE", 23), ("EMFILE", 24), ("ENOTTY", 25), ("ETXTBSY", 26), ("EFBIG", 27), ("ENOSPC", 28), ("ESPIPE", 29),
    ("EROFS", 30), ("EMLINK", 31), ("EPIPE", 32), ("EDOM", 33), ("ERANGE", 34), ("EDEADLK", 35), ("ENAMETOOLONG", 36),
    ("ENOLCK", 37), ("ENOSYS", 38), ("ENOTEMPTY", 39), ("ELOOP", 40), ("ENOMSG", 42), ("EIDRM", 43), ("ECHRNG", 44),
    ("EL2NSYNC", 45), ("EL3HLT", 46), ("EL3RST", 47), ("ELNRNG", 48), ("EUNATCH", 49), ("ENOCSI", 50), ("EL2HLT", 51),
    ("EBADE", 52), ("EBADR", 53), ("EXFULL", 54), ("ENOANO", 55), ("EBADRQC", 56), ("EBADSLT", 57), ("EBFONT", 59),
    ("ENOSTR", 60), ("ENODATA", 61), ("ETIME", 62), ("ENOSR", 63), ("ENONET", 64), ("ENOPKG", 65), ("EREMOTE", 66),
    ("ENOLINK", 67), ("EADV", 68), ("ESRMNT", 69), ("ECOMM", 70), ("EPROTO", 71), ("EMULTIHOP", 72), ("EDOTDOT", 73),
    ("EBADMSG", 74), ("EOVERFLOW", 75), ("ENOTUNIQ", 76), ("EBADFD", 77), ("EREMCHG", 78), ("ELIBACC", 79),
    ("ELIBBAD", 80), ("ELIBSCN", 81), ("ELIBMAX", 82), ("ELIBEXEC", 83), ("EILSEQ", 84), ("ERESTART", 85),
    ("ESTRPIPE", 86), ("EUSERS", 87), ("ENOTSOCK", 88), ("EDESTADDRREQ", 89), ("EMSGSIZE", 90), ("EPROTOTYPE", 91),
    ("ENOPROTOOPT", 92), ("EPROTONOSUPPORT", 93), ("ESOCKTNOSUPPORT", 94), ("EOPNOTSUPP", 95), ("EPFNOSUPPORT", 96),
    ("EAFNOSUPPORT", 97), ("EADDRINUSE", 98), ("EADDRNOTAVAIL", 99), ("ENETDOWN", 100), ("ENETUNREACH", 101),
    ("ENETRESET", 102), ("ECONNABORTED", 103), ("ECONNRESET", 104), ("ENOBUFS", 105), ("EISCONN", 106),
    ("ENOTCONN", 107), ("ESHUTDOWN", 108), ("ETOOMANYREFS", 109), ("ETIMEDOUT", 110), ("ECONNREFUSED", 111),
    ("EHOSTDOWN", 112), ("EHOSTUNREACH", 113), ("EALREADY", 114), ("EINPROGRESS", 115), ("ESTALE", 116),
    ("EUCLEAN", 117), ("ENOTNAM", 118), ("ENAVAIL", 119), ("EISNAM", 120), ("EREMOTEIO", 121), ("EDQUOT", 122),
    ("ENOMEDIUM", 123), ("EMEDIUMTYPE", 124), ("ECANCELED", 125), ("ENOKEY", 126), ("EKEYEXPIRED", 127),
    ("EKEYREVOKED", 128), ("EKEYREJECTED", 129), ("EOWNERDEAD", 130), ("ENOTRECOVERABLE", 131), ("ERFKILL", 132),
    ("EHWPOISON", 133),
];

/// Second names.
const ALIASES: [(&str, u16); 3] = [("EWOULDBLOCK", 11), ("EDEADLOCK", 35), ("ENOTSUP", 95)];

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

    /// Every name that [`Errno::find`] knows: one for each number, then the second ones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().chain(&ALIASES).map(|(name, _)| *name)
    }

    /// The known error of that number.
    pub fn new(number: u16) -> Option<Errno> {
        KNOWN.iter().any(|(_, known)| *known == number).then_some(Errno(number))
    }

    /// The known error of that name, in any case.
    pub fn find(name: &str) -> Option<Errno> {
        KNOWN
            .iter()
            .chain(&ALIASES)
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, number)| Errno(*number))
    }

    /// The name of a known error that is nearest to a wrong name.
    pub fn nearest(name: &str) -> Option<&'static str> {
        names::nearest(name, Errno::names())
    }

    /// Whether it does not tell programs that they were refused, but to wait, to try again, or that all is well.
    pub fn invites_to_go_on(self) -> bool {
        ["EINTR", "EAGAIN", "EALREADY", "EINPROGRESS", "EISCONN"].contains(&self.name())
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
        assert_eq!(Errno::find("EWOULDBLOCK"), Errno::find("EAGAIN"));
        assert_eq!(Errno::find("ENOTSUP").map(Errno::name), Some("EOPNOTSUPP"));
        assert_eq!(Errno::nearest("EHOSTUNREACHABLE"), Some("EHOSTUNREACH"));
        assert_eq!(Errno::EHOSTUNREACH.to_string(), "EHOSTUNREACH");
        assert_eq!(Errno::EPERM.get(), 1);
    }

    /// The C library of this machine has a text for exactly the numbers that have a name here.
    #[test]
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn the_table_is_complete() {
        for number in 1..200 {
            let text = std::io::Error::from_raw_os_error(number.into()).to_string();
            assert_eq!(Errno::new(number).is_some(), !text.starts_with("Unknown error"), "{number}: {text}");
        }
        use std::io::ErrorKind;
        let kinds = [
            ("EADDRINUSE", ErrorKind::AddrInUse),
            ("ECONNREFUSED", ErrorKind::ConnectionRefused),
            ("EHOSTUNREACH", ErrorKind::HostUnreachable),
            ("ENETDOWN", ErrorKind::NetworkDown),
            ("ETIMEDOUT", ErrorKind::TimedOut),
        ];
        for (name, kind) in kinds {
            let number = Errno::find(name).unwrap().get();
            assert_eq!(std::io::Error::from_raw_os_error(number.into()).kind(), kind, "{name}");
        }
    }
}
