//! The classifier as the kernel runs it, over values that are given from here, and what it takes there.
//!
//! Nothing is attached and no process is filtered: the program is run by `BPF_PROG_TEST_RUN`. It holds the same
//! classification as the hooks.

use crate::{
    config,
    enforcement::map_cells,
    group::{Group, GroupError, hierarchy},
    image::Cells,
    load::{LEAST_CELLS, LoadError, Settings, Shims},
    records::Record,
};
use aya::{
    maps::{Array, MapData, MapError},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun},
};
use openwfp_abi::{
    config::Config,
    measure::{BATCH, BLOCK, LATE, Measurement, PERMIT, WORDS},
};
use openwfp_engine::{Action, Cell, CompiledPolicy, Reason, Values};
use openwfp_model::LayerId;
use thiserror::Error;

fn failed(source: MapError) -> LoadError {
    LoadError::Map { name: MEASUREMENTS, source: Box::new(source) }
}

/// Why nothing can be classified in the kernel.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The programs cannot be loaded, or a map cannot be written.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no control group to name to the programs.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The kernel did not run the program, or the program did not do what it was asked.
    #[error("the kernel did not run the measuring program{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Run(#[source] Option<Box<ProgramError>>),
}

/// One classification in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// Permit, block or late.
    pub action: Action,
    /// The filter that decided; 0: none.
    pub filter: u64,
    /// Why, where the filter's action does not say it.
    pub reason: Reason,
    /// The errno that a refused call would return; 0: the default.
    pub errno: u16,
    /// Nanoseconds of the classification and one reading of the clock.
    pub nanoseconds: u64,
    /// Nanoseconds of one reading of the clock, just before.
    pub clock: u64,
}

/// The program, loaded, with a policy image to classify by.
pub struct KernelClassifier {
    shims: Shims,
    cells: Cells,
    measurements: Array<MapData, Record<Measurement>>,
    run: u64,
}

const PROGRAM: &str = "measure";
const MEASUREMENTS: &str = "MEASUREMENTS";

impl KernelClassifier {
    /// Loads the program, with room for an image of this many cells. There is no image yet.
    pub fn load(cells: usize) -> Result<Self, MeasureError> {
        // the program asks nothing about processes, so that any group will do
        let group = Group::open(&hierarchy()?)?;
        let room = u32::try_from(cells).unwrap_or(u32::MAX).max(LEAST_CELLS);
        let mut shims = Shims::load(&Settings { group: &group, cells: room, ..Settings::labels(&group) })?;
        let refused = |source| LoadError::Program { name: PROGRAM, source: Box::new(source) };
        let program = shims.ebpf().program_mut(PROGRAM).ok_or(LoadError::ObjectLacks { name: PROGRAM })?;
        let program: &mut RawTracePoint = program.try_into().map_err(refused)?;
        program.load().map_err(refused)?;
        let cells = map_cells(&mut shims, room)?;
        let map = shims.ebpf().take_map(MEASUREMENTS).ok_or(LoadError::ObjectLacks { name: MEASUREMENTS })?;
        let measurements = Array::try_from(map).map_err(failed)?;
        Ok(Self { shims, cells, measurements, run: 0 })
    }

    /// Takes a policy in place of the one before.
    pub fn set_policy(&mut self, policy: &CompiledPolicy) -> Result<(), MeasureError> {
        let image = policy.image();
        self.set_image(image.cells(), image.generation())
    }

    /// Takes cells for an image as they are, in place of the one before, and tells the program that the image there is of this
    /// generation: also what no policy compiles to. What stood in the map beyond them stays.
    pub fn set_image(&mut self, cells: &[Cell], generation: u32) -> Result<(), MeasureError> {
        self.cells.write(0, cells)?;
        let config = Config { image: Config::image_word(0, generation), ..Config::default() };
        Ok(config::write(&mut self.shims, config)?)
    }

    /// Writes one cell of the map, counted from the image's first, over what stands there: a fault in the image.
    pub fn damage(&mut self, index: u32, cell: Cell) -> Result<(), MeasureError> {
        Ok(self.cells.write(index, &[cell])?)
    }

    /// How many cells the map has. Those that were never written are zeros; beyond, a look-up fails.
    pub fn room(&self) -> u32 {
        self.cells.count()
    }

    /// Classifies the values of these events at a layer, one after the other.
    pub fn classify(&mut self, layer: LayerId, events: &[Values]) -> Result<Vec<Classified>, MeasureError> {
        let mut all = Vec::with_capacity(events.len());
        for batch in events.chunks(BATCH as usize) {
            for (index, values) in (0..).zip(batch) {
                self.measurements.set(index, Record(question(values)), 0).map_err(failed)?;
            }
            self.run(layer, batch.len() as u64)?;
            for index in (0..).take(batch.len()) {
                let Record(record) = self.measurements.get(&index, 0).map_err(failed)?;
                // another run's answer would be none
                let answer = (record.run == self.run).then(|| answer(&record)).flatten();
                all.push(answer.ok_or(MeasureError::Run(None))?);
            }
        }
        Ok(all)
    }

    fn run(&mut self, layer: LayerId, count: u64) -> Result<(), MeasureError> {
        let failed = |source| MeasureError::Run(Some(Box::new(source)));
        self.run += 1;
        let program = self.shims.ebpf().program(PROGRAM).ok_or(LoadError::ObjectLacks { name: PROGRAM })?;
        let program: &RawTracePoint = program.try_into().map_err(failed)?;
        let mut options = RawTracePointRunOptions::new();
        options.args[..3].copy_from_slice(&[u64::from(layer.get()), count, self.run]);
        program.test_run(options).map_err(failed)?;
        Ok(())
    }
}

/// The record for one event, before the program has seen it.
fn question(values: &Values) -> Measurement {
    const { assert!(WORDS == openwfp_engine::WORDS) };
    Measurement {
        values: std::array::from_fn(|word| values.get(word)),
        run: 0,
        filter: 0,
        action: 0,
        reason: 0,
        errno: 0,
        zero: 0,
        nanoseconds: 0,
        clock: 0,
    }
}

/// `None`: these are no numbers that the program writes.
fn answer(record: &Measurement) -> Option<Classified> {
    let action = match record.action {
        PERMIT => Action::Permit,
        BLOCK => Action::Block,
        LATE => Action::Late,
        _ => return None,
    };
    Some(Classified {
        action,
        filter: record.filter,
        reason: Reason::from_number(record.reason)?,
        errno: record.errno,
        nanoseconds: record.nanoseconds,
        clock: record.clock,
    })
}
