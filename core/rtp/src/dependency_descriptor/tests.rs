use proptest::prelude::*;

use super::{DecodeTargetIndication::*, *};

fn bytes_of(bits: &str) -> Vec<u8> {
    let bits: Vec<u8> = bits.bytes().filter(|byte| *byte != b' ').map(|byte| byte - b'0').collect();
    bits.chunks(8)
        .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (i, bit)| byte | bit << (7 - i)))
        .collect()
}

/// One spatial and two temporal layers, a chain over the base layer; the first frame.
fn l1t2() -> Vec<u8> {
    bytes_of(concat!(
        "1 1 000101 0000000100000010", // start, end, template 5, frame 0x0102
        "10000",                       // structure
        "000101 00001",                // offset 5, two decode targets
        "00 01 11",                    // (0,0) (0,0) (0,1)
        "1010 1111 0001",              // decode target indications
        "0 1 0001 0 1 0000 0",         // frame diffs: none, 2, 1
        "10",                          // one chain; who it protects takes no bits
        "0000 0010 0001",              // chain diffs
        "1 0000001001111111 0000000101100111",
    ))
}

#[test]
fn a_hand_made_structure_reads_field_by_field() {
    let structure = Structure::parse(&l1t2()).unwrap();
    assert_eq!((structure.template_id_offset(), structure.templates().len()), (5, 3));
    assert_eq!((structure.decode_target_count(), structure.chain_count()), (2, 1));
    assert_eq!(structure.all_decode_targets(), 0b11);
    assert_eq!(structure.resolutions(), [(640, 360)]);
    assert_eq!([0, 1, 2].map(|target| structure.protected_by(target)), [Some(0), Some(0), None]);
    assert_eq!([0, 1].map(|target| structure.decode_target_layers(target)), [(0, 0), (0, 1)]);
    let second = structure.template(6).unwrap();
    assert_eq!(second.decode_targets.get(0), Required);
    assert_eq!((second.frame_diffs.as_slice(), second.chain_diffs[0]), (&[2][..], 2));
    let third = structure.template(7).unwrap();
    assert_eq!([0, 1].map(|target| third.decode_targets.get(target)), [NotPresent, Discardable]);
    assert_eq!((third.temporal_layer, structure.template(8)), (1, None));

    let first = Descriptor::parse(&l1t2(), None).unwrap();
    assert!(first.start_of_frame && first.end_of_frame && first.structure_attached);
    assert_eq!((first.frame_number, first.template_id), (0x0102, 5));
    assert_eq!(first.active_decode_targets, Some(0b11));
    let mut out = [0xEE; 64];
    let len = first.write(&mut out, &structure).unwrap();
    assert_eq!(out[..len], l1t2());
}

#[test]
fn later_descriptors_need_the_structure() {
    let structure = Structure::parse(&l1t2()).unwrap();
    let data = [0x87, 0x01, 0x03];
    assert_eq!(Structure::parse(&data), None);
    assert_eq!(Descriptor::parse(&data, None), None);
    let descriptor = Descriptor::parse(&data, Some(&structure)).unwrap();
    assert_eq!((descriptor.spatial_layer, descriptor.temporal_layer), (0, 1));
    assert_eq!(descriptor.frame_diffs.as_slice(), [1]);
    assert_eq!((descriptor.active_decode_targets, descriptor.end_of_frame), (None, false));
    let mut out = [0; 3];
    assert_eq!(descriptor.write(&mut out, &structure), Some(3));
    assert_eq!(out, data);
    assert_eq!(Descriptor::parse(&[0x88, 0, 0], Some(&structure)), None, "no such template");
    assert_eq!(Descriptor::parse(&data[..2], Some(&structure)), None);
}

#[test]
fn a_frame_may_differ_from_its_template() {
    let structure = Structure::parse(&l1t2()).unwrap();
    let data = bytes_of(concat!(
        "0 1 000111 0000000000000001",
        "01111",
        "01",                                     // active decode targets
        "11 00",                                  // required, not present
        "01 0010 10 00010000 11 000100000000 00", // 3, 17, 257
        "11001000",                               // chain diff 200
    ));
    let descriptor = Descriptor::parse(&data, Some(&structure)).unwrap();
    assert_eq!(descriptor.active_decode_targets, Some(1));
    assert_eq!([0, 1].map(|target| descriptor.decode_targets.get(target)), [Required, NotPresent]);
    assert_eq!(descriptor.frame_diffs.as_slice(), [3, 17, 257]);
    assert_eq!(descriptor.chain_diffs[0], 200);
    let mut out = [0; 16];
    let len = descriptor.write(&mut out, &structure).unwrap();
    assert_eq!(out[..len], data);
    for short in 0..len {
        assert_eq!(
            Descriptor::parse(&data[..short], Some(&structure)).filter(|_| short != 3),
            None
        );
        assert_eq!(descriptor.write(&mut out[..short], &structure), None);
    }
}

#[test]
fn rewriting_changes_the_number_and_the_mask_alone() {
    let structure = Structure::parse(&l1t2()).unwrap();
    let mut out = [0; 64];
    let custom = bytes_of(concat!(
        "0 1 000111 0000000000000001",
        "01111 01 11 00 01 0010 10 00010000 11 000100000000 00 11001000",
    ));
    for data in [l1t2(), custom, vec![0x87, 1, 3]] {
        let before = Descriptor::parse(&data, Some(&structure)).unwrap();
        for active in [None, Some(0b10)] {
            let len = rewrite(&mut out, &data, 777, active, 2).unwrap();
            let after = Descriptor::parse(&out[..len], Some(&structure)).unwrap();
            let active_decode_targets = active.or(before.active_decode_targets);
            assert_eq!(after, Descriptor { frame_number: 777, active_decode_targets, ..before });
        }
    }
    assert_eq!(rewrite(&mut out, &[1, 2], 777, None, 2), None);
    assert_eq!(rewrite(&mut out[..4], &[0x87, 1, 3], 777, Some(1), 32), None);
}

#[test]
fn bounds_hold() {
    let structure = |steps: &str| {
        Structure::parse(&bytes_of(&format!(
            "{:024b} 10000 000000 00000 {steps} {}",
            0,
            "0".repeat(999)
        )))
    };
    assert_eq!(structure("10 10 10 11").unwrap().spatial_layers(), MAX_SPATIAL_LAYERS);
    assert_eq!(structure("10 10 10 10 11"), None);
    assert_eq!(structure(&("01".repeat(7) + "11")).unwrap().templates().len(), MAX_TEMPORAL_LAYERS);
    assert_eq!(structure(&("01".repeat(8) + "11")), None);
    assert_eq!(structure(&("00".repeat(63) + "11")).unwrap().templates().len(), MAX_TEMPLATES);
    assert_eq!(structure(&("00".repeat(64) + "11")), None);
    // One template, its indication, then frame diffs.
    assert!(structure(&("11 00".to_owned() + &"10000".repeat(MAX_FRAME_DIFFS))).is_some());
    assert_eq!(structure(&("11 00".to_owned() + &"10000".repeat(MAX_FRAME_DIFFS + 1))), None);
    assert!(FrameDiffs::new(&[1; MAX_FRAME_DIFFS]).is_some());
    assert!(FrameDiffs::new(&[1; MAX_FRAME_DIFFS + 1]).is_none());
    let template = [Template::default()];
    assert!(Structure::new(0, &template, MAX_DECODE_TARGETS, MAX_CHAINS, &[0; 32]).is_some());
    assert!(Structure::new(0, &template, MAX_DECODE_TARGETS + 1, 0, &[]).is_none());
    assert!(Structure::new(0, &template, 1, 2, &[0]).is_none());
    assert!(Structure::new(0, &template, 2, 1, &[0]).is_none(), "a target without its chain");
    assert!(Structure::new(0, &[], 1, 0, &[]).is_none());
    assert!(Structure::new(0, &[Template::default(); 65], 1, 0, &[]).is_none());
}

#[test]
fn impossible_structures_are_not_written() {
    let written = |template: Template, protected_by: u8| {
        let structure =
            Structure::new(0, &[Template::default(), template], 2, 1, &[0, protected_by]).unwrap();
        let mut descriptor = Descriptor::parse(&l1t2(), None).unwrap();
        descriptor.template_id = 0;
        descriptor.write(&mut [0; 64], &structure)
    };
    assert!(written(Template::default(), 0).is_some());
    assert_eq!(written(Template::default(), 1), None, "no such chain");
    assert_eq!(written(Template { temporal_layer: 2, ..Default::default() }, 0), None);
    assert_eq!(written(Template { chain_diffs: [16; MAX_CHAINS], ..Default::default() }, 0), None);
    for diff in [0, 17] {
        let frame_diffs = FrameDiffs::new(&[diff]).unwrap();
        assert_eq!(written(Template { frame_diffs, ..Default::default() }, 0), None);
    }
}

fn decode_targets(count: usize) -> impl Strategy<Value = DecodeTargets> {
    let indication = prop::sample::select(vec![NotPresent, Discardable, Switch, Required]);
    prop::collection::vec(indication, count).prop_map(|indications| {
        let mut targets = DecodeTargets::default();
        indications.iter().enumerate().for_each(|(target, found)| targets.set(target, *found));
        targets
    })
}

fn frame_diffs(most: u16) -> impl Strategy<Value = FrameDiffs> {
    prop::collection::vec(1..=most, 0..=MAX_FRAME_DIFFS)
        .prop_map(|diffs| FrameDiffs::new(&diffs).unwrap())
}

fn chain_diffs(count: usize, most: u8) -> impl Strategy<Value = [u8; MAX_CHAINS]> {
    prop::collection::vec(0..=most, count).prop_map(|diffs| {
        let mut all = [0; MAX_CHAINS];
        all[..diffs.len()].copy_from_slice(&diffs);
        all
    })
}

fn structures() -> impl Strategy<Value = Structure> {
    (1usize..=MAX_DECODE_TARGETS)
        .prop_flat_map(|targets| (Just(targets), 0..=targets))
        .prop_flat_map(|(targets, chains)| {
            let template =
                (0u8..3, decode_targets(targets), frame_diffs(16), chain_diffs(chains, 15));
            let templates = prop::collection::vec(template, 1..MAX_TEMPLATES);
            let protected_by = prop::collection::vec(0..chains.max(1) as u8, targets);
            let resolutions = prop::option::of((1u32..=65_536, 1u32..=65_536));
            (0u8..64, templates, Just((targets, chains)), protected_by, resolutions)
        })
        .prop_map(|(offset, parts, (targets, chains), protected_by, resolution)| {
            let mut layers = (0, 0);
            let mut templates = Vec::new();
            for (step, decode_targets, frame_diffs, chain_diffs) in parts {
                layers = match (step, layers) {
                    (1, (spatial, temporal)) if temporal < 7 => (spatial, temporal + 1),
                    (2, (spatial, _)) if spatial < 3 => (spatial + 1, 0),
                    _ => layers,
                };
                if templates.is_empty() {
                    layers = (0, 0);
                }
                let (spatial_layer, temporal_layer) = layers;
                templates.push(Template {
                    spatial_layer,
                    temporal_layer,
                    decode_targets,
                    frame_diffs,
                    chain_diffs,
                });
            }
            let mut structure =
                Structure::new(offset, &templates, targets, chains, &protected_by).unwrap();
            if let Some(size) = resolution {
                let mut sizes = [(0, 0); MAX_SPATIAL_LAYERS];
                sizes[..structure.spatial_layers()].fill(size);
                structure.set_resolutions(sizes);
            }
            structure
        })
}

fn descriptors() -> impl Strategy<Value = (Structure, Descriptor)> {
    structures().prop_flat_map(|structure| {
        let template_index = 0..structure.templates().len() as u8;
        let custom = (
            prop::option::of(decode_targets(structure.decode_target_count())),
            prop::option::of(frame_diffs(4_096)),
            prop::option::of(chain_diffs(structure.chain_count(), 255)),
            prop::option::of(0..=structure.all_decode_targets()),
        );
        (Just(structure), template_index, any::<(bool, bool, bool, u16)>(), custom).prop_map(
            |(
                structure,
                index,
                (start_of_frame, end_of_frame, structure_attached, number),
                custom,
            )| {
                let template_id = structure.template_id_offset().wrapping_add(index) & 0x3F;
                let template = *structure.template(template_id).unwrap();
                let (decode_targets, frame_diffs, chain_diffs, active) = custom;
                let implied = structure_attached.then(|| structure.all_decode_targets());
                let descriptor = Descriptor {
                    start_of_frame,
                    end_of_frame,
                    template_id,
                    frame_number: number,
                    structure_attached,
                    active_decode_targets: active.or(implied),
                    spatial_layer: template.spatial_layer,
                    temporal_layer: template.temporal_layer,
                    decode_targets: decode_targets.unwrap_or(template.decode_targets),
                    frame_diffs: frame_diffs.unwrap_or(template.frame_diffs),
                    chain_diffs: chain_diffs.unwrap_or(template.chain_diffs),
                };
                (structure, descriptor)
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn descriptors_survive_a_round_trip((structure, descriptor) in descriptors()) {
        let mut out = [0xFF; 4_096];
        let len = descriptor.write(&mut out, &structure).unwrap();
        let held = if descriptor.structure_attached {
            prop_assert_eq!(Structure::parse(&out[..len]), Some(structure.clone()));
            None
        } else {
            Some(&structure)
        };
        prop_assert_eq!(Descriptor::parse(&out[..len], held), Some(descriptor));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn junk_never_panics(mut data in prop::collection::vec(any::<u8>(), 0..120), attached: bool) {
        let structure = Structure::parse(&l1t2());
        if let Some(flags) = data.get_mut(3) {
            *flags = *flags & 0x7F | u8::from(attached) << 7;
        }
        if let Some(structure) = Structure::parse(&data) {
            (0..40).for_each(|target| {
                structure.decode_target_layers(target);
                structure.protected_by(target);
            });
            structure.resolutions();
        }
        Descriptor::parse(&data, structure.as_ref());
        rewrite(&mut [0; 255], &data, 1, Some(3), 5);
    }

    #[test]
    fn damaged_structures_never_panic(at in 0usize..17, value: u8) {
        let mut data = l1t2();
        if let Some(byte) = data.get_mut(at) {
            *byte = value;
        }
        if let (Some(descriptor), Some(structure)) =
            (Descriptor::parse(&data, None), Structure::parse(&data))
        {
            descriptor.write(&mut [0; 512], &structure);
        }
    }
}
