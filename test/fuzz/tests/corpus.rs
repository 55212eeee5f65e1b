//! Every target over its corpus: what was found once stays fixed.

use std::{fs, path::Path};

#[test]
fn no_target_panics_on_its_corpus() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in parlor_fuzz::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name))? {
            target(&fs::read(entry?.path())?);
            inputs += 1;
        }
        assert!(inputs > 0, "corpus/{name} is empty");
    }
    Ok(())
}
