//! Which system calls the command is refused, as a program for seccomp(2).
//!
//! | refused | answer | why |
//! | --- | --- | --- |
//! | `socket`, `socketpair` of another family | `EAFNOSUPPORT` | the programs of a control group never see packet, XDP, vsock and other sockets |
//! | `socket(AF_INET, …, IPPROTO_SMC)` | `EPROTONOSUPPORT` | its data leaves through RDMA, past every filter |
//! | `socket(AF_INET, SOCK_PACKET, …)` | `EAFNOSUPPORT` | a packet socket, as it was asked for before there was a family for it |
//! | `io_uring_*` | `ENOSYS` | it makes sockets without `socket()`; programs fall back to ordinary calls |
//! | `bpf` | `EPERM` | it opens maps, programs and links by their ids |
//! | `unshare`, `clone` with `CLONE_NEWUSER` | `EPERM` | in a user namespace of its own the command may mount, and owns network namespaces |
//! | `unshare`, `clone` with `CLONE_NEWCGROUP` | `EPERM` | cgroup2 can be mounted anew by whoever owns the cgroup namespace |
//! | `clone3` | `ENOSYS` | its flags lie in memory, where a filter cannot look; the C libraries fall back to `clone` |
//! | `setns` | `EPERM` | it enters user namespaces that the same user has made outside |
//! | `ioctl` `TIOCSTI`, `TIOCLINUX` | `EPERM` | they type into the terminal that the command shares with the shell outside |
//! | `prctl(PR_SET_MM)` | `EPERM` | it gives the process another executable file |
//! | `request_key` with something to tell | `EPERM` | the kernel starts a program outside that looks up names in the network |
//!
//! Not refused, because the kernel asks for a capability that the command does not have: `mount` and its kin, `open_by_handle_at`,
//! `kexec_load`, `init_module`, `perf_event_open` on others. Tracing others (`ptrace`, `process_vm_writev`, `pidfd_getfd`,
//! `/proc/PID/mem`) is limited by the Landlock domain of the command instead: a debugger inside the run keeps working.
//!
//! A filter that knows the numbers of one architecture alone is walked around: the same process may enter the kernel as a
//! 32-bit program (`int 0x80`), where `socket` has another number. So there is a table for each way in: x86-64 with i386 (and
//! x32, which answers `ENOSYS`), AArch64 with Arm. `socketcall` of i386 takes its arguments in memory, so its calls for a new
//! socket answer `ENOSYS`: old 32-bit C libraries cannot open sockets. Any other way in kills the process.
//!
//! The programs are written by hand because the `seccompiler` crate answers a wrong architecture with death (so 32-bit
//! programs would not run at all), does not look for x32 numbers, and gives one answer for all rules of a filter.

use libc::sock_filter;

use crate::Isolation;
use crate::capability::Capability;
use crate::family::Family;

/// The numbers of one way into the kernel.
struct Abi {
    /// `AUDIT_ARCH_*`, what seccomp reports as the architecture.
    audit: u32,
    socket: u32,
    socketpair: u32,
    socketcall: Option<u32>,
    clone: u32,
    unshare: u32,
    setns: u32,
    bpf: u32,
    ioctl: u32,
    prctl: u32,
    request_key: u32,
    /// Numbers from here on belong to another table and answer `ENOSYS`.
    end: Option<u32>,
}

const X86_64: Abi = Abi {
    audit: 0xc000_003e,
    socket: 41,
    socketpair: 53,
    socketcall: None,
    clone: 56,
    unshare: 272,
    setns: 308,
    bpf: 321,
    ioctl: 16,
    prctl: 157,
    request_key: 249,
    end: Some(0x4000_0000),
};

const I386: Abi = Abi {
    audit: 0x4000_0003,
    socket: 359,
    socketpair: 360,
    socketcall: Some(102),
    clone: 120,
    unshare: 310,
    setns: 346,
    bpf: 357,
    ioctl: 54,
    prctl: 172,
    request_key: 287,
    end: None,
};

const AARCH64: Abi = Abi {
    audit: 0xc000_00b7,
    socket: 198,
    socketpair: 199,
    socketcall: None,
    clone: 220,
    unshare: 97,
    setns: 268,
    bpf: 280,
    ioctl: 29,
    prctl: 167,
    request_key: 218,
    end: None,
};

const ARM: Abi = Abi {
    audit: 0x4000_0028,
    socket: 281,
    socketpair: 288,
    socketcall: Some(102),
    clone: 120,
    unshare: 337,
    setns: 375,
    bpf: 386,
    ioctl: 54,
    prctl: 172,
    request_key: 310,
    end: None,
};

/// The ways into the kernel of this machine; empty where they are not known.
const NATIVE: &[Abi] = if cfg!(target_arch = "x86_64") {
    &[X86_64, I386]
} else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
    &[AARCH64, ARM]
} else {
    &[]
};

// The same numbers on all architectures, as for every call since 2019.
const IO_URING: [u32; 3] = [425, 426, 427];
const CLONE3: u32 = 435;

const CLONE_NEWCGROUP: u32 = libc::CLONE_NEWCGROUP.cast_unsigned();
const CLONE_NEWUSER: u32 = libc::CLONE_NEWUSER.cast_unsigned();
const IPPROTO_SMC: u32 = 256;
const SOCK_PACKET: u32 = 10;
/// What of a socket's type is not flags.
const SOCK_TYPE_MASK: u32 = 15;
const SOCKETCALL_SOCKET: u32 = 1;
const SOCKETCALL_SOCKETPAIR: u32 = 8;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// The program for a command; `None` on an architecture whose numbers are not known here.
pub(crate) fn filter(isolation: &Isolation) -> Option<Vec<sock_filter>> {
    (!NATIVE.is_empty()).then(|| program(NATIVE, isolation))
}

fn program(abis: &[Abi], isolation: &Isolation) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for abi in abis {
        let rules = rules(abi, isolation);
        program.extend([when(EQUAL, abi.audit, 1, 0), jump(rules.len())]);
        program.extend(rules);
    }
    program.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// One rule for each call: skipped when the number differs, otherwise its last instruction is an answer.
fn rules(abi: &Abi, isolation: &Isolation) -> Vec<sock_filter> {
    let kept = |capability| isolation.keep_capabilities.contains(&capability);
    let mut rules = vec![load(NUMBER)];
    if let Some(end) = abi.end {
        rules.extend([when(AT_LEAST, end, 0, 1), refuse(libc::ENOSYS)]);
    }
    let mut rule = |number: u32, body: &[sock_filter]| {
        let length = u8::try_from(body.len()).expect("64 families make the longest rule: fewer than 140 instructions");
        rules.push(when(EQUAL, number, 0, length));
        rules.extend(body);
    };

    let mut families: Vec<Family> = isolation.families.to_vec();
    families.extend(Family::ALWAYS);
    families.sort_unstable();
    families.dedup();
    rule(abi.socket, &socket(&families));
    rule(abi.socketpair, &only(0, families.iter().map(|family| family.number()), libc::EAFNOSUPPORT));
    if let Some(socketcall) = abi.socketcall {
        rule(socketcall, &none_of(0, [SOCKETCALL_SOCKET, SOCKETCALL_SOCKETPAIR], libc::ENOSYS));
    }
    if !isolation.io_uring {
        for number in IO_URING {
            rule(number, &[refuse(libc::ENOSYS)]);
        }
    }
    if !kept(Capability::BPF) && !kept(Capability::SYS_ADMIN) {
        rule(abi.bpf, &[refuse(libc::EPERM)]);
    }
    // With CAP_SYS_ADMIN the command mounts what it likes: nothing is won by refusing namespaces.
    if !kept(Capability::SYS_ADMIN) {
        let spaces = if isolation.user_namespaces { CLONE_NEWCGROUP } else { CLONE_NEWCGROUP | CLONE_NEWUSER };
        rule(abi.unshare, &without(0, spaces, libc::EPERM));
        rule(abi.clone, &without(0, spaces, libc::EPERM));
        rule(CLONE3, &[refuse(libc::ENOSYS)]);
        if !isolation.user_namespaces {
            rule(abi.setns, &[refuse(libc::EPERM)]);
        }
    }
    rule(abi.ioctl, &none_of(1, [TIOCSTI, TIOCLINUX], libc::EPERM));
    if !kept(Capability::CHECKPOINT_RESTORE) {
        rule(abi.prctl, &none_of(0, [libc::PR_SET_MM.cast_unsigned()], libc::EPERM));
    }
    rule(abi.request_key, &null(2, libc::EPERM));
    rules.push(allow());
    rules
}

/// `socket(family, type, protocol)`: the listed families, and no others in the clothes of TCP and IP.
fn socket(families: &[Family]) -> Vec<sock_filter> {
    let (smc, packet) = (families.contains(&Family::SMC), families.contains(&Family::PACKET));
    let mut body = vec![load(argument(0))];
    for &family in families {
        let mut answers = Vec::new();
        if family == Family::INET && !packet {
            answers.extend([load(argument(1)), and(SOCK_TYPE_MASK)]);
            answers.extend([when(EQUAL, SOCK_PACKET, 0, 1), refuse(libc::EAFNOSUPPORT)]);
        }
        if [Family::INET, Family::INET6].contains(&family) && !smc {
            answers.extend([load(argument(2)), when(EQUAL, IPPROTO_SMC, 0, 1), refuse(libc::EPROTONOSUPPORT)]);
        }
        answers.push(allow());
        // eight instructions at most
        body.push(when(EQUAL, family.number(), 0, answers.len() as u8));
        body.extend(answers);
    }
    body.push(refuse(libc::EAFNOSUPPORT));
    body
}

/// Only these values of an argument.
fn only(index: u32, values: impl IntoIterator<Item = u32>, errno: i32) -> Vec<sock_filter> {
    let mut body = vec![load(argument(index))];
    for value in values {
        body.extend([when(EQUAL, value, 0, 1), allow()]);
    }
    body.push(refuse(errno));
    body
}

/// Any value of an argument but these.
fn none_of(index: u32, values: impl IntoIterator<Item = u32>, errno: i32) -> Vec<sock_filter> {
    let mut body = vec![load(argument(index))];
    for value in values {
        body.extend([when(EQUAL, value, 0, 1), refuse(errno)]);
    }
    body.push(allow());
    body
}

/// Only a null pointer as an argument.
fn null(index: u32, errno: i32) -> Vec<sock_filter> {
    let (lower, upper) = (argument(index), argument(index) + 4);
    vec![load(lower), when(EQUAL, 0, 0, 3), load(upper), when(EQUAL, 0, 0, 1), allow(), refuse(errno)]
}

/// None of these bits in an argument.
fn without(index: u32, bits: u32, errno: i32) -> Vec<sock_filter> {
    vec![load(argument(index)), when(ANY_BIT, bits, 0, 1), refuse(errno), allow()]
}

// `struct seccomp_data`: number, architecture, instruction pointer, six arguments of 64 bits. The calls concerned take 32-bit
// arguments and ignore the upper halves, so the filter must not look at those either.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const fn argument(index: u32) -> u32 {
    // The lower half comes first: little-endian machines alone are known here.
    16 + 8 * index
}

const EQUAL: u32 = libc::BPF_JEQ;
const AT_LEAST: u32 = libc::BPF_JGE;
const ANY_BIT: u32 = libc::BPF_JSET;

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // Every code of classic BPF fits in 16 bits.
    sock_filter { code: code as u16, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Skips `yes` instructions when the loaded word compares so with the value, else `no`.
fn when(comparison: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, yes, no, value)
}

/// Keeps these bits of the loaded word.
fn and(bits: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, bits)
}

fn jump(length: usize) -> sock_filter {
    let length = u32::try_from(length).expect("a table of rules is short");
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, length)
}

fn answer(answer: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, answer)
}

fn refuse(errno: i32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

fn allow() -> sock_filter {
    answer(libc::SECCOMP_RET_ALLOW)
}

#[cfg(test)]
mod tests;
