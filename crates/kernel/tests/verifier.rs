//! The kernel accepts every program. Needs root and BPF.

mod support;

use aya::programs::{Program, ProgramError, loaded_programs};
use openwfp_kernel::{
    features,
    load::{Settings, Shims},
};
use std::time::Instant;
use support::OwnGroup;

fn load(program: &mut Program, shims_types: &aya::Btf) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::BtfTracePoint(_) => {
            let _ = shims_types;
            Ok(())
        }
        other => panic!("an unexpected kind of program: {:?}", other.prog_type()),
    }
}

#[test]
fn every_program_is_accepted() {
    if let Some(reason) = features::missing().first() {
        eprintln!("skipped: {reason}");
        return;
    }
    let group = OwnGroup::make();
    let mut shims = Shims::load(&Settings {
        groups_named: if std::env::var_os("G").is_some() { &[27] } else { &[] },
        ..Settings::labels(&group.0)
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let types = aya::Btf::from_sys_fs().unwrap();
    let mut refused = vec![];
    for (name, program) in shims.ebpf().programs_mut() {
        let started = Instant::now();
        match load(program, &types) {
            Ok(()) => {
                let time = started.elapsed();
                if let Ok(info) = program.info() {
                    println!("{name}: {:?} instructions verified, {time:?}", info.verified_instruction_count());
                }
            }
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().collect();
                println!("{name}: {io_error}\n{}", lines[lines.len().saturating_sub(90)..].join("\n"));
                refused.push(name.to_string());
            }
            Err(error) => {
                println!("{name}: {error}");
                refused.push(name.to_string());
            }
        }
    }
    let _ = loaded_programs;
    assert!(refused.is_empty(), "refused: {refused:?}");
}
