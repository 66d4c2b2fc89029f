//! `xtask-bindings MODULE.wasm FOLDER`: writes the module as browsers load it, its JavaScript and its types.

use std::env;

use anyhow::{Context, ensure};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let args: Vec<_> = env::args_os().skip(1).collect();
    ensure!(args.len() == 2, "a module and a folder are wanted");
    let mut bindgen = Bindgen::new();
    bindgen.input_path(&args[0]).web(true)?.typescript(true).remove_name_section(true).remove_producers_section(true);
    bindgen.generate(&args[1]).context("this module and these bindings do not fit together")
}
