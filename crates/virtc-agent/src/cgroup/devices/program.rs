//! The BPF program that decides as the rules do.
//!
//! It takes the rules from the last to the first, and keeps the bits of the access that no rule has
//! decided yet. A rule that allows takes its bits away, and nothing is left to decide when none is
//! left. A rule that refuses one of them has decided all. Every jump goes forward.
//!
//! Each condition loads what it looks at again. The kernel walks through all paths of a program, and
//! takes two for one where they know the same: a register that kept the number of one rule would
//! make it walk through all later rules once more for each rule.

use super::rules::{Access, DeviceRules, Rule};

/// `struct bpf_insn`.
pub(super) type Instruction = [u8; 8];

/// Registers. The kernel passes its question by the first, and takes the answer from `ANSWER`.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const UNDECIDED: u8 = 2;
const LOOKED_AT: u8 = 3;

/// Operations, from linux/bpf.h: the class, the size or operation, and the source.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_W | BPF_MEM
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_IF_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const JUMP_IF_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// `struct bpf_cgroup_dev_ctx`: the access in the upper half of the first word and the kind in the
/// lower one, then the numbers.
const ACCESS_AND_KIND_AT: i16 = 0;
const MAJOR_AT: i16 = 4;
const MINOR_AT: i16 = 8;
const KIND_MASK: u32 = 0xffff;
const ACCESS_SHIFT: u32 = 16;

/// Instructions that answer.
const ANSWER_LENGTH: usize = 2;

/// Makes the program of these rules.
pub(super) fn compile(rules: &DeviceRules) -> Vec<Instruction> {
    let mut code = vec![
        load(UNDECIDED, ACCESS_AND_KIND_AT),
        operation(SHIFT_RIGHT, UNDECIDED, ACCESS_SHIFT),
        // Nothing is done to the device.
        jump(JUMP_IF_NOT_EQUAL, UNDECIDED, 0, ANSWER_LENGTH),
    ];
    code.extend(answer(true));
    for rule in rules.iter().rev() {
        code.extend(decide(rule));
        if rule.is_about_all() {
            // The kernel takes no program with instructions that are never reached.
            return code;
        }
    }
    code.extend(answer(false));
    code
}

/// Answers if the rule decides what is left, and goes on behind this code if it does not.
fn decide(rule: &Rule) -> Vec<Instruction> {
    // From the last to the first, since each jumps over those behind it.
    let mut code = consequence(rule);
    for (at, number) in [(MINOR_AT, rule.minor), (MAJOR_AT, rule.major)] {
        if let Some(number) = number {
            let condition = [
                load(LOOKED_AT, at),
                jump(JUMP_IF_NOT_EQUAL, LOOKED_AT, number, code.len()),
            ];
            code.splice(0..0, condition);
        }
    }
    if let Some(kind) = rule.kind {
        let condition = [
            load(LOOKED_AT, ACCESS_AND_KIND_AT),
            operation(AND, LOOKED_AT, KIND_MASK),
            jump(JUMP_IF_NOT_EQUAL, LOOKED_AT, kind as u32, code.len()),
        ];
        code.splice(0..0, condition);
    }
    code
}

/// What a rule does that is about the device.
fn consequence(rule: &Rule) -> Vec<Instruction> {
    let bits = u32::from(rule.access.bits());
    let mut code = Vec::new();
    match (rule.allow, rule.access) {
        // Whatever is left is decided.
        (_, Access::ALL) => {}
        (true, _) => {
            code.push(operation(AND, UNDECIDED, !bits));
            code.push(jump(JUMP_IF_NOT_EQUAL, UNDECIDED, 0, ANSWER_LENGTH));
        }
        (false, _) => {
            code.push(instruction(MOVE_REGISTER, LOOKED_AT, UNDECIDED, 0, 0));
            code.push(operation(AND, LOOKED_AT, bits));
            code.push(jump(JUMP_IF_EQUAL, LOOKED_AT, 0, ANSWER_LENGTH));
        }
    }
    code.extend(answer(rule.allow));
    code
}

fn answer(allow: bool) -> [Instruction; ANSWER_LENGTH] {
    [
        operation(MOVE, ANSWER, u32::from(allow)),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

fn load(register: u8, at: i16) -> Instruction {
    instruction(LOAD_WORD, register, QUESTION, at, 0)
}

fn operation(code: u8, register: u8, value: u32) -> Instruction {
    instruction(code, register, 0, 0, value)
}

/// Jumps over as many instructions. A rule has some ten.
fn jump(code: u8, register: u8, value: u32, over: usize) -> Instruction {
    instruction(code, register, 0, over as i16, value)
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: u32) -> Instruction {
    // Two fields of four bits, which the compilers of both byte orders lay out their way.
    let registers = if cfg!(target_endian = "little") {
        to | from << 4
    } else {
        to << 4 | from
    };
    let [o0, o1] = offset.to_ne_bytes();
    let [v0, v1, v2, v3] = value.to_ne_bytes();
    [code, registers, o0, o1, v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
    use proptest::prelude::*;

    use super::super::rules::Kind;
    use super::*;

    /// Does what the kernel does with a program, for the operations that ours have.
    fn run(program: &[Instruction], context: [u32; 3]) -> bool {
        let mut registers = [0u32; 11];
        let mut at = 0;
        // A program that is left or goes back runs over the end of it here.
        for _ in 0..program.len() {
            let [code, pair, o0, o1, v0, v1, v2, v3] = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).unwrap();
            let value = u32::from_ne_bytes([v0, v1, v2, v3]);
            at += 1;
            match code {
                LOAD_WORD => {
                    assert_eq!(from, usize::from(QUESTION));
                    registers[to] = context[offset / 4];
                }
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE => registers[to] = value,
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_IF_EQUAL if registers[to] == value => at += offset,
                JUMP_IF_NOT_EQUAL if registers[to] != value => at += offset,
                JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL => {}
                EXIT => return registers[usize::from(ANSWER)] == 1,
                code => panic!("operation {code:#x}"),
            }
        }
        panic!("no answer")
    }

    /// Which instructions some path leads to.
    fn reached(program: &[Instruction]) -> Vec<bool> {
        let mut reached = vec![false; program.len()];
        reached[0] = true;
        for at in 0..program.len() {
            let [code, _, o0, o1, ..] = program[at];
            let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).unwrap();
            if !reached[at] || code == EXIT {
                continue;
            }
            reached[at + 1] = true;
            if matches!(code, JUMP_IF_EQUAL | JUMP_IF_NOT_EQUAL) {
                reached[at + 1 + offset] = true;
            }
        }
        reached
    }

    fn number() -> impl Strategy<Value = Option<i64>> {
        prop_oneof![
            Just(None),
            proptest::sample::select(vec![0i64, 1, 3, 5, 136, 200, i64::from(u32::MAX)])
                .prop_map(Some)
        ]
    }

    fn device() -> impl Strategy<Value = LinuxDeviceCgroup> {
        let kind = proptest::sample::select(vec![
            None,
            Some(LinuxDeviceType::A),
            Some(LinuxDeviceType::B),
            Some(LinuxDeviceType::C),
        ]);
        let access = proptest::sample::select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm"]);
        (any::<bool>(), kind, number(), number(), access).prop_map(
            |(allow, kind, major, minor, access)| {
                let mut device = LinuxDeviceCgroup::default();
                device
                    .set_allow(allow)
                    .set_typ(kind)
                    .set_major(major)
                    .set_minor(minor)
                    .set_access(Some(access.to_owned()));
                device
            },
        )
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_rules_do(
            devices in proptest::collection::vec(device(), 1..12),
        ) {
            let rules = DeviceRules::parse(&devices).unwrap();
            let program = compile(&rules);
            prop_assert!(reached(&program).into_iter().all(|reached| reached));
            for kind in [Kind::Block, Kind::Character] {
                for bits in 0..8 {
                    for major in [0, 1, 2, 5, 136, u32::MAX] {
                        for minor in [0, 1, 3, 4, 200, u32::MAX] {
                            let access = Access::from_bits(bits);
                            let question = u32::from(bits) << ACCESS_SHIFT | kind as u32;
                            prop_assert_eq!(
                                run(&program, [question, major, minor]),
                                rules.allows(kind, major, minor, access),
                                "{:?} {}:{} {:?}", kind, major, minor, access
                            );
                        }
                    }
                }
            }
        }
    }
}
