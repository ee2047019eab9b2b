//! Fails when a program of ours is loaded: for checks that nothing was left behind.

use aya::programs::loaded_programs;
use openwfp_kernel::hooks::Hook;
use openwfp_model::Layer;
use std::process::ExitCode;

fn main() -> ExitCode {
    let hooks = Hook::of_layers(Layer::all().iter().map(|layer| layer.id));
    let mut ours: Vec<&str> = hooks.iter().map(|hook| hook.name()).collect();
    ours.extend(["process_exec", "process_fork", "process_exit"]);
    let mut found = false;
    for program in loaded_programs() {
        let program = match program {
            Ok(program) => program,
            Err(error) => {
                println!("skipped: loaded programs cannot be listed: {error}");
                return ExitCode::SUCCESS;
            }
        };
        if let Some(name) = program.name_as_str().filter(|name| ours.contains(name)) {
            println!("left behind: the program {name}, number {}", program.id());
            found = true;
        }
    }
    if found { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
