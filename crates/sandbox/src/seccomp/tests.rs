//! Runs the programs on the calls of every architecture, with the kernel's reading of classic BPF.

use super::*;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALL: [&Abi; 4] = [&X86_64, &I386, &AARCH64, &ARM];

fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// What the program answers to a call.
fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 3]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => architecture,
        16.. => {
            let argument = arguments[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
        _ => panic!("the program reads offset {offset}"),
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { jt } else { jf });
        match u32::from(code) {
            0x20 => accumulator = word(k),
            0x15 => branch(accumulator == k),
            0x35 => branch(accumulator >= k),
            0x45 => branch(accumulator & k != 0),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x06 => return k,
            other => panic!("instruction {other:#x} is not used here"),
        }
    }
}

/// The answers of the whole program, by call; every table gives the same.
struct Answers(Vec<sock_filter>);

impl Answers {
    fn of(isolation: &Isolation) -> Self {
        Self(program(&[X86_64, I386, AARCH64, ARM], isolation))
    }

    fn expect(&self, number: impl Fn(&Abi) -> u32, arguments: [u64; 3], expected: u32) {
        for abi in ALL {
            let found = run(&self.0, abi.audit, number(abi), arguments);
            assert_eq!(found, expected, "architecture {:#x}, number {}, {arguments:?}", abi.audit, number(abi));
        }
    }
}

#[test]
fn sockets_of_four_families_can_be_made() {
    let answers = Answers::of(&Isolation::default());
    for family in 0..64 {
        let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].contains(&family);
        let expected = if known { ALLOW } else { errno(libc::EAFNOSUPPORT) };
        let arguments = [family.cast_unsigned().into(), 1, 0];
        answers.expect(|abi| abi.socket, arguments, expected);
        answers.expect(|abi| abi.socketpair, arguments, expected);
    }
}

#[test]
fn the_upper_half_of_an_argument_hides_nothing() {
    let answers = Answers::of(&Isolation::default());
    answers.expect(|abi| abi.socket, [0xdead_beef_0000_0011, 3, 0], errno(libc::EAFNOSUPPORT));
    answers.expect(|abi| abi.socket, [0xdead_beef_0000_0002, 1, 0], ALLOW);
    answers.expect(|abi| abi.ioctl, [0, 0xdead_beef_0000_5412, 0], errno(libc::EPERM));
    answers.expect(|abi| abi.prctl, [0xdead_beef_0000_0023, 0, 0], errno(libc::EPERM));
    answers.expect(|abi| abi.unshare, [0xdead_beef_1000_0000, 0, 0], errno(libc::EPERM));
}

#[test]
fn more_families_can_be_added() {
    let isolation = Isolation { families: vec!["packet".parse().unwrap(), Family::INET], ..Isolation::default() };
    let answers = Answers::of(&isolation);
    answers.expect(|abi| abi.socket, [17, 3, 0x0300], ALLOW);
    // A protocol number of packet sockets that is also that of SMC.
    answers.expect(|abi| abi.socket, [17, 3, 0x0100], ALLOW);
    answers.expect(|abi| abi.socket, [44, 3, 0], errno(libc::EAFNOSUPPORT));
}

#[test]
fn smc_is_refused_unless_asked_for() {
    let answers = Answers::of(&Isolation::default());
    for family in [2, 10] {
        answers.expect(|abi| abi.socket, [family, 1, 256], errno(libc::EPROTONOSUPPORT));
        answers.expect(|abi| abi.socket, [family, 1, 6], ALLOW);
        answers.expect(|abi| abi.socket, [family, 1, 262], ALLOW);
    }
    let answers = Answers::of(&Isolation { families: vec![Family::SMC], ..Isolation::default() });
    answers.expect(|abi| abi.socket, [2, 1, 256], ALLOW);
}

#[test]
fn packet_sockets_are_refused_by_their_old_name_too() {
    let answers = Answers::of(&Isolation::default());
    for flags in [0, libc::SOCK_CLOEXEC, libc::SOCK_NONBLOCK] {
        let kind = u64::from((10 | flags).cast_unsigned());
        answers.expect(|abi| abi.socket, [2, kind, 8], errno(libc::EAFNOSUPPORT));
        answers.expect(|abi| abi.socket, [2, kind | 0xdead_beef_0000_0000, 8], errno(libc::EAFNOSUPPORT));
    }
    for kind in [1, 2, 3, 5, 6] {
        answers.expect(|abi| abi.socket, [2, kind, 8], ALLOW);
    }
    let answers = Answers::of(&Isolation { families: vec![Family::PACKET], ..Isolation::default() });
    answers.expect(|abi| abi.socket, [2, 10, 8], ALLOW);
    answers.expect(|abi| abi.socket, [2, 10, 256], errno(libc::EPROTONOSUPPORT));
}

#[test]
fn every_family_at_once_still_makes_a_program() {
    let families = (0..64).filter_map(|number: u32| number.to_string().parse().ok()).collect();
    let answers = Answers::of(&Isolation { families, ..Isolation::default() });
    answers.expect(|abi| abi.socket, [63, 1, 0], ALLOW);
    answers.expect(|abi| abi.socket, [64, 1, 0], errno(libc::EAFNOSUPPORT));
}

#[test]
fn io_uring_does_not_exist_unless_asked_for() {
    for number in IO_URING {
        Answers::of(&Isolation::default()).expect(|_| number, [0; 3], errno(libc::ENOSYS));
        Answers::of(&Isolation { io_uring: true, ..Isolation::default() }).expect(|_| number, [0; 3], ALLOW);
    }
}

#[test]
fn namespaces_that_lead_out_are_refused() {
    let other = u64::from((libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID).cast_unsigned());
    let (user, cgroup) = (u64::from(CLONE_NEWUSER), u64::from(CLONE_NEWCGROUP));
    let closed = Answers::of(&Isolation::default());
    let open = Answers::of(&Isolation { user_namespaces: true, ..Isolation::default() });
    for call in [|abi: &Abi| abi.unshare, |abi: &Abi| abi.clone] {
        for answers in [&closed, &open] {
            answers.expect(call, [other, 0, 0], ALLOW);
            answers.expect(call, [cgroup | other, 0, 0], errno(libc::EPERM));
        }
        closed.expect(call, [user, 0, 0], errno(libc::EPERM));
        open.expect(call, [user, 0, 0], ALLOW);
    }
    for answers in [&closed, &open] {
        answers.expect(|_| CLONE3, [0; 3], errno(libc::ENOSYS));
    }
    closed.expect(|abi| abi.setns, [3, 0, 0], errno(libc::EPERM));
    open.expect(|abi| abi.setns, [3, 0, 0], ALLOW);
}

#[test]
fn bpf_is_refused_unless_a_capability_for_it_is_kept() {
    Answers::of(&Isolation::default()).expect(|abi| abi.bpf, [0; 3], errno(libc::EPERM));
    for capability in [Capability::BPF, Capability::SYS_ADMIN] {
        let isolation = Isolation { keep_capabilities: vec![capability], ..Isolation::default() };
        Answers::of(&isolation).expect(|abi| abi.bpf, [0; 3], ALLOW);
    }
}

#[test]
fn typing_into_the_terminal_and_changing_the_executable_are_refused() {
    let answers = Answers::of(&Isolation::default());
    answers.expect(|abi| abi.ioctl, [0, TIOCSTI.into(), 0], errno(libc::EPERM));
    answers.expect(|abi| abi.ioctl, [0, TIOCLINUX.into(), 0], errno(libc::EPERM));
    answers.expect(|abi| abi.ioctl, [0, 0x5401, 0], ALLOW);
    answers.expect(|abi| abi.prctl, [35, 13, 0], errno(libc::EPERM));
    answers.expect(|abi| abi.prctl, [15, 0, 0], ALLOW);
}

#[test]
fn the_kernel_starts_no_program_to_find_a_key() {
    let answers = Answers::of(&Isolation::default());
    answers.expect(|abi| abi.request_key, [1, 2, 0], ALLOW);
    for pointer in [1, 0x7fff_0000_0000, 0xffff_ffff] {
        answers.expect(|abi| abi.request_key, [1, 2, pointer], errno(libc::EPERM));
    }
}

#[test]
fn old_32_bit_calls_for_sockets_are_refused_and_the_others_not() {
    let program = program(&[X86_64, I386], &Isolation::default());
    for call in 1..=20 {
        let expected = if [1, 8].contains(&call) { errno(libc::ENOSYS) } else { ALLOW };
        assert_eq!(run(&program, I386.audit, 102, [call, 0, 0]), expected, "socketcall {call}");
    }
}

#[test]
fn no_call_comes_in_by_another_way() {
    let program = program(&[X86_64, I386], &Isolation::default());
    // x32: the numbers of x86-64 with a bit, and its own.
    for number in [0x4000_0000 | 41, 0x4000_0000 | 56, 0x4000_0000 | 514, u32::MAX] {
        assert_eq!(run(&program, X86_64.audit, number, [17, 0, 0]), errno(libc::ENOSYS));
    }
    for architecture in [0, ARM.audit, AARCH64.audit, 0xc000_00f3] {
        assert_eq!(run(&program, architecture, 1, [0; 3]), KILL);
    }
}

#[test]
fn every_other_call_is_allowed_whatever_its_arguments() {
    let answers = Answers::of(&Isolation::default());
    for abi in ALL {
        let named = [
            abi.socket,
            abi.socketpair,
            abi.clone,
            abi.unshare,
            abi.setns,
            abi.bpf,
            abi.ioctl,
            abi.prctl,
            abi.request_key,
            CLONE3,
        ];
        for number in (0..600).filter(|number| !named.contains(number) && !IO_URING.contains(number)) {
            if abi.socketcall != Some(number) {
                assert_eq!(run(&answers.0, abi.audit, number, [u64::MAX; 3]), ALLOW, "{number}");
            }
        }
    }
}

#[test]
fn numbers_are_those_of_this_machine() {
    let Some(native) = NATIVE.first() else { return };
    let numbers = [
        (native.socket, libc::SYS_socket),
        (native.socketpair, libc::SYS_socketpair),
        (native.clone, libc::SYS_clone),
        (native.unshare, libc::SYS_unshare),
        (native.setns, libc::SYS_setns),
        (native.bpf, libc::SYS_bpf),
        (native.ioctl, libc::SYS_ioctl),
        (native.prctl, libc::SYS_prctl),
        (native.request_key, libc::SYS_request_key),
        (IO_URING[0], libc::SYS_io_uring_setup),
        (IO_URING[1], libc::SYS_io_uring_enter),
        (IO_URING[2], libc::SYS_io_uring_register),
        (CLONE3, libc::SYS_clone3),
    ];
    for (ours, theirs) in numbers {
        assert_eq!(libc::c_long::from(ours), theirs);
    }
}
