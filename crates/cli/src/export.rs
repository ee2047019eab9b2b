//! `wfp export`: policies in another form, and the schema of policy files.

use crate::{
    args::{ExportArgs, Format},
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result};
use openwfp_model::policy_file;
use std::slice;

/// Runs the command.
pub(crate) fn export(args: &ExportArgs, globals: Globals) -> Result<()> {
    let text = match args.format {
        Format::Schema => policy_file::json_schema(),
        format => {
            let path = args.policy.as_ref().context("say which policy: -p POLICY")?;
            let policies = policies::load(slice::from_ref(path), globals)?;
            let policy = policies.first().context("the file holds no policy")?;
            if format == Format::Toml { policy_file::write_toml(policy) } else { policy_file::write_json(policy) }
        }
    };
    output::write_out(|out| Ok(writeln!(out, "{}", text.trim_end())?))
}
