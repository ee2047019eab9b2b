//! The kernel accepts every program, and soon. Needs root and BPF.

mod support;

use aya::{
    Btf,
    programs::{Program, ProgramError},
};
use openwfp_kernel::{
    features,
    load::{Settings, Shims},
    namespaces::Asked,
};
use std::time::Instant;
use support::{OwnGroup, actor};

#[test]
fn actor() {
    actor::act();
}

fn load(name: &str, program: &mut Program, types: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        // attached below
        Program::SchedClassifier(program) => program.load(),
        Program::BtfTracePoint(program) if name == "kernel_drop" => program.load("kfree_skb", types),
        _ => Ok(()),
    }
}

/// Instructions that the verifier may look at in one program. More would cost every start of a command too much time.
const MOST_INSTRUCTIONS: u32 = 50_000;

/// The bound of a program. What the kernel drops by itself is asked for at _DISCARD layers alone, and Linux 6.1 looks at twice as
/// much there as later ones.
fn most(name: &str) -> u32 {
    if name == "kernel_drop" { 2 * MOST_INSTRUCTIONS } else { MOST_INSTRUCTIONS }
}

fn every_program_is_accepted(groups_named: &[u32], asked: Asked) {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return;
    }
    let group = OwnGroup::make();
    // diverting is part of the programs where it is asked for
    let diverted = if groups_named.is_empty() { 0 } else { 1 << 20 };
    let settings = Settings { groups_named, asked, diverted, ..Settings::labels(&group.0) };
    let mut shims = Shims::load(&settings).unwrap_or_else(|error| panic!("{error}"));
    let mut refused = vec![];
    let (ebpf, types) = shims.ebpf_and_types();
    for (name, program) in ebpf.programs_mut() {
        // it asks for the paths of Unix sockets, for which older kernels have no hook
        if name == "unix_path" && support::skips::kernel_is_before(6, 7, format_args!("the program {name}")) {
            continue;
        }
        let started = Instant::now();
        match load(name, program, types) {
            Ok(()) => {
                let Ok(info) = program.info() else { continue };
                let instructions = info.verified_instruction_count();
                println!("{name}: {instructions:?} instructions verified, {:?}", started.elapsed());
                assert!(instructions.is_none_or(|count| count < most(name)), "{name}: {instructions:?}");
            }
            Err(error) => {
                let text = format!("{error:?}");
                let end = text.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
                refused.push(format!("{name}: {error}: {}", text[end..].replace("\\n", "\n")));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    shims.attach_labels(None).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_program_is_accepted_for_a_policy_without_groups() {
    every_program_is_accepted(&[], Asked::default());
}

#[test]
fn every_program_is_accepted_for_a_policy_that_names_groups() {
    every_program_is_accepted(&[27], Asked::default());
}

#[test]
fn every_program_is_accepted_for_a_policy_that_asks_for_control_groups_and_namespaces() {
    every_program_is_accepted(&[27], Asked { groups: true, namespaces: true });
}
