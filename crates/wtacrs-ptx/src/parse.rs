//! From text to instructions. What is not known is an error, so that no instruction is run by half.

use crate::arithmetic::is_conversion;
use crate::instruction::{
    Access, Atomic, Compare, Compute, Instruction, Multiply, Operand, Operation, Reduce, Shuffle, Space, Special, Type,
    Vote,
};
use crate::{Entry, ReadError, Reason};
use std::collections::{BTreeMap, HashMap};

/// The block's dynamic shared memory, which begins at address 0 here.
const SHARED_MEMORY: &str = "wtacrs_shared";

/// The kernels of a text, by name.
pub(crate) fn entries(text: &str) -> Result<BTreeMap<String, Entry>, ReadError> {
    let mut entries = BTreeMap::new();
    let mut lines = (1_u32..).zip(text.lines());
    while let Some((_, line)) = lines.next() {
        let Some((_, head)) = line.split_once(".entry ") else { continue };
        let name = head.split('(').next().unwrap_or_default().trim();
        // Parameters and directives stand before the body.
        let mut body = Body { most_threads: u32::MAX, ..Body::default() };
        let mut parameters = Vec::new();
        for (number, line) in lines.by_ref() {
            let line = line.trim();
            if line == "{" {
                break;
            } else if line.starts_with(".param") {
                parameters.push(bytes_of_parameter(line).map_err(|reason| error(number, line, reason))?);
            } else if let Some(threads) = line.strip_prefix(".maxntid") {
                let threads = threads.split(',').next().unwrap_or_default().trim();
                body.most_threads = threads.parse().map_err(|reason| error(number, line, Reason::Number(reason)))?;
            }
            if line == ")" && parameters.len() != 1 {
                return Err(error(number, name, Reason::Parameters));
            }
        }
        let mut statement = String::new();
        let mut first = 0;
        for (number, line) in lines.by_ref() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if line == "}" {
                break;
            }
            if let Some(label) = line.strip_suffix(':') {
                body.labels.insert(label.to_owned(), body.instructions.len() as u32);
                continue;
            }
            // An instruction can go over several lines, and a line of inline assembly can have several.
            for part in line.split_inclusive(';') {
                if statement.is_empty() {
                    first = number;
                }
                statement.push_str(part);
                statement.push(' ');
                if part.ends_with(';') {
                    let text = std::mem::take(&mut statement);
                    body.statement(first, &text).map_err(|reason| error(first, &text, reason))?;
                } else if part.trim() == "}" {
                    statement.clear();
                }
            }
        }
        entries.insert(name.to_owned(), body.into_entry(parameters[0])?);
    }
    Ok(entries)
}

fn error(line: u32, statement: &str, reason: Reason) -> ReadError {
    ReadError { line, statement: statement.trim().to_owned(), reason }
}

/// `.param .align 8 .b8 name[40]`, or `.param .b64 name`.
fn bytes_of_parameter(line: &str) -> Result<usize, Reason> {
    match line.split_once('[') {
        Some((_, rest)) => Ok(rest.trim_end_matches([']', ',']).parse()?),
        None => {
            let kind = line.split_whitespace().find(|word| word.starts_with('.') && *word != ".param");
            Ok(read_type(kind.unwrap_or_default().trim_start_matches('.'))?.bits() as usize / 8)
        }
    }
}

/// A kernel that is being read.
#[derive(Default)]
struct Body {
    most_threads: u32,
    registers: HashMap<String, u32>,
    labels: HashMap<String, u32>,
    instructions: Vec<Instruction>,
    /// Branches, and where they go.
    branches: Vec<(usize, String)>,
}

impl Body {
    fn into_entry(mut self, parameter_bytes: usize) -> Result<Entry, ReadError> {
        for (at, label) in &self.branches {
            let instruction = &mut self.instructions[*at];
            let to = self.labels.get(label).ok_or_else(|| error(instruction.line, label, Reason::Label))?;
            instruction.operation = Operation::Branch(*to);
        }
        let Self { most_threads, registers, instructions, .. } = self;
        Ok(Entry { parameter_bytes, most_threads, registers: registers.len() as u32, instructions })
    }

    /// One statement, up to its semicolon.
    fn statement(&mut self, line: u32, text: &str) -> Result<(), Reason> {
        // Inline assembly may have a block of its own, whose braces stand before its declarations and alone.
        let text = text.trim().trim_end_matches(';').trim_start_matches(['{', '}', ' ']).trim();
        if text.is_empty() || text.starts_with('.') {
            return Ok(());
        }
        let (guard, text) = match text.strip_prefix('@') {
            None => (None, text),
            Some(guarded) => {
                let (register, rest) = guarded.split_once(char::is_whitespace).ok_or(Reason::Unknown)?;
                let (negated, register) =
                    register.strip_prefix('!').map_or((false, register), |register| (true, register));
                (Some((self.register(register), !negated)), rest.trim())
            }
        };
        let (opcode, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let groups = groups(operands);
        let parts: Vec<&str> = opcode.split('.').collect();
        if parts[0] == "bra" {
            let label = groups.first().and_then(|group| group.first()).ok_or(Reason::Label)?;
            self.branches.push((self.instructions.len(), label.to_string()));
        }
        let operation = operation(&parts, &groups)?;
        let writes = !matches!(
            operation,
            Operation::Store(..)
                | Operation::StoreRelaxed(_)
                | Operation::StoreRelease(_)
                | Operation::Fence
                | Operation::Nap
                | Operation::Branch(_)
                | Operation::Return
                | Operation::Trap
                | Operation::Barrier
                | Operation::WarpBarrier
                | Operation::Copy { .. }
                | Operation::CommitCopies
                | Operation::WaitForCopies { .. }
        );
        let (to, from) = groups.split_at(usize::from(writes));
        let to = to.iter().flatten().map(|word| self.register(word)).collect();
        let mut read = Vec::new();
        if !matches!(operation, Operation::Branch(_)) {
            for word in from.iter().flatten() {
                read.push(self.operand(word)?);
            }
        }
        self.instructions.push(Instruction { guard, operation, to, from: read, line });
        Ok(())
    }

    fn register(&mut self, name: &str) -> u32 {
        let next = self.registers.len() as u32;
        *self.registers.entry(name.to_owned()).or_insert(next)
    }

    fn operand(&mut self, word: &str) -> Result<Operand, Reason> {
        if let Some(address) = word.strip_prefix('[') {
            let address = address.trim_end_matches(']');
            let (base, offset) = match address.split_once('+') {
                Some((base, offset)) => (base, offset.parse()?),
                None => (address, 0),
            };
            // A kernel has one parameter, so what is read of it is told by the offset alone.
            if base.contains("_param_0") || base == SHARED_MEMORY {
                return Ok(Operand::Constant(offset as u64));
            }
            return Ok(Operand::Sum(self.register(base), offset));
        }
        if let Some(special) = special(word) {
            return Ok(Operand::Special(special));
        }
        if word == SHARED_MEMORY {
            return Ok(Operand::Constant(0));
        }
        if word.starts_with('%') {
            return Ok(Operand::Register(self.register(word)));
        }
        Ok(Operand::Constant(constant(word)?))
    }
}

fn special(word: &str) -> Option<Special> {
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    match word.split_once('.').unwrap_or((word, "")) {
        ("%tid", "x") => Some(Special::Thread),
        ("%ntid", "x") => Some(Special::BlockThreads),
        ("%tid", _) => Some(Special::Nothing(0)),
        ("%ntid", _) => Some(Special::Nothing(1)),
        ("%laneid", _) => Some(Special::Lane),
        ("%ctaid", name) => axis(name).map(Special::Block),
        ("%nctaid", name) => axis(name).map(Special::Grid),
        ("WARP_SZ", _) => Some(Special::Nothing(32)),
        _ => None,
    }
}

/// `-3`, `0f3F800000`, `0d3FF0000000000000`, `0x10`.
fn constant(word: &str) -> Result<u64, Reason> {
    for prefix in ["0f", "0F", "0d", "0D", "0x", "0X"] {
        if let Some(digits) = word.strip_prefix(prefix) {
            return Ok(u64::from_str_radix(digits, 16)?);
        }
    }
    if word.starts_with('-') {
        return Ok(word.parse::<i64>()? as u64);
    }
    word.parse().map_err(|_| Reason::Operand(word.into()))
}

/// Operands at their commas, each vector `{a, b}` as a group.
fn groups(operands: &str) -> Vec<Vec<&str>> {
    let mut groups = Vec::new();
    let mut rest = operands.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('{').and_then(|vector| vector.split_once('}')) {
            Some((vector, after)) => (vector, after.trim_start().strip_prefix(',').unwrap_or(after)),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        groups.push(group.split(',').map(str::trim).collect());
        rest = after.trim();
    }
    groups
}

fn read_type(name: &str) -> Result<Type, Reason> {
    let bits = |digits: &str| {
        digits.parse::<u32>().ok().filter(|bits| matches!(bits, 8 | 16 | 32 | 64)).ok_or(Reason::Unknown)
    };
    match name {
        "pred" => Ok(Type::Predicate),
        "f16" => Ok(Type::F16),
        "bf16" => Ok(Type::Bf16),
        "tf32" => Ok(Type::Tf32),
        "f32" => Ok(Type::F32),
        "f64" => Ok(Type::F64),
        _ => match name.split_at_checked(1) {
            Some(("u" | "b", digits)) => Ok(Type::Unsigned(bits(digits)?)),
            Some(("s", digits)) => Ok(Type::Signed(bits(digits)?)),
            _ => Err(Reason::Unknown),
        },
    }
}

/// What an opcode means, with its parts between the points. Operands tell a `mov` of parts, and constants of a form.
fn operation(parts: &[&str], groups: &[Vec<&str>]) -> Result<Operation, Reason> {
    let last = parts[parts.len() - 1];
    let compute = |operation| Ok(Operation::Compute(operation, read_type(last)?));
    let carry = |subtract, carry_in| {
        let bits = read_type(last)?.bits();
        Ok(Operation::Carry { subtract, carry_in, carry_out: parts[1] == "cc", bits })
    };
    match parts {
        ["mov", kind] => {
            let bits = read_type(kind)?.bits();
            let vector = |group: usize| groups.get(group).map_or(0, Vec::len) as u32;
            match (vector(0), vector(1)) {
                (1, 1) => Ok(Operation::Move),
                (parts @ 2..=4, 1) => Ok(Operation::Cut(bits / parts)),
                (1, parts @ 2..=4) => Ok(Operation::Join(bits / parts)),
                _ => Err(Reason::Unknown),
            }
        }
        ["add" | "sub", "cc", _] => carry(parts[0] == "sub", false),
        ["addc" | "subc", "cc", _] | ["addc" | "subc", _] => carry(parts[0] == "subc", true),
        ["add", "rn", "f32" | "f64"] => compute(Compute::Add),
        ["sub", "rn", "f32" | "f64"] => compute(Compute::Subtract),
        ["mul", "rn", "f32" | "f64"] => compute(Compute::Multiply),
        ["div", "rn", "f32" | "f64"] => compute(Compute::Divide),
        ["fma", "rn", "f32" | "f64"] => compute(Compute::MultiplyAdd),
        ["sqrt", "rn", "f32" | "f64"] => compute(Compute::Root),
        ["rcp", "rn", "f32" | "f64"] => compute(Compute::Reciprocal),
        ["add", _] if is_integer(last)? => compute(Compute::Add),
        ["sub", _] if is_integer(last)? => compute(Compute::Subtract),
        ["mul", "lo", _] => compute(Compute::Multiply),
        ["mul", "hi", _] => compute(Compute::MultiplyHigh),
        ["mul", "wide", _] => compute(Compute::MultiplyWide),
        ["mad", "lo", _] => compute(Compute::MultiplyAdd),
        ["mad", "wide", _] => compute(Compute::MultiplyAddWide),
        ["div", _] if is_integer(last)? => compute(Compute::Divide),
        ["rem", _] if is_integer(last)? => compute(Compute::Remainder),
        ["min", _] => compute(Compute::Least),
        ["max", _] => compute(Compute::Greatest),
        ["abs", _] => compute(Compute::Absolute),
        ["neg", _] => compute(Compute::Negative),
        ["and", _] => compute(Compute::And),
        ["or", _] => compute(Compute::Or),
        ["xor", _] => compute(Compute::Xor),
        ["not", _] => compute(Compute::Not),
        ["shl", _] => compute(Compute::Left),
        ["shr", _] => compute(Compute::Right),
        ["popc", _] => compute(Compute::Ones),
        ["clz", _] => compute(Compute::LeadingZeros),
        ["bfe", "u32" | "u64"] => compute(Compute::Field),
        ["setp", comparison, kind] => Ok(Operation::Compare(read_comparison(comparison)?, read_type(kind)?)),
        ["selp", kind] => Ok(Operation::Select(read_type(kind)?.bits())),
        ["cvt", mode @ .., to, from] => {
            let (to, from) = (read_type(to)?, read_type(from)?);
            let towards_zero = match mode {
                [] | ["rn" | "rni"] => false,
                ["rzi"] => true,
                // To the nearest, ties away from zero, which only this type has.
                ["rna"] if to == Type::Tf32 => false,
                _ => return Err(Reason::Unknown),
            };
            if !is_conversion(to, from) {
                return Err(Reason::Unknown);
            }
            Ok(Operation::Convert { to, from, towards_zero })
        }
        ["ld", "param", kind] => Ok(Operation::Parameter { bytes: read_type(kind)?.bits() / 8 }),
        ["ld", "relaxed", "gpu", "global", kind] => Ok(Operation::LoadRelaxed(read_type(kind)?.bits())),
        ["st", "relaxed", "gpu", "global", kind] => Ok(Operation::StoreRelaxed(read_type(kind)?.bits())),
        ["ld", "acquire", "gpu", "global", kind] => Ok(Operation::LoadAcquire(read_type(kind)?.bits())),
        ["st", "release", "gpu", "global", kind] => Ok(Operation::StoreRelease(read_type(kind)?.bits())),
        ["ld", "global", "nc", rest @ ..] => Ok(Operation::Load(Space::Constant, access(rest)?)),
        ["ld", "global", rest @ ..] => Ok(Operation::Load(Space::Global, access(rest)?)),
        ["ld", "shared", rest @ ..] => Ok(Operation::Load(Space::Shared, access(rest)?)),
        ["st", "global", rest @ ..] => Ok(Operation::Store(Space::Global, access(rest)?)),
        ["st", "shared", rest @ ..] => Ok(Operation::Store(Space::Shared, access(rest)?)),
        ["atom", "relaxed", "gpu", "global", name, kind] => {
            Ok(Operation::Atomic(Space::Global, atomic(name, kind)?, read_type(kind)?.bits()))
        }
        ["atom", "relaxed", "cta", "shared", name, kind] => {
            Ok(Operation::Atomic(Space::Shared, atomic(name, kind)?, read_type(kind)?.bits()))
        }
        ["fence", "acq_rel", "gpu"] => Ok(Operation::Fence),
        ["nanosleep", "u32"] => Ok(Operation::Nap),
        ["bra"] | ["bra", "uni"] => Ok(Operation::Branch(u32::MAX)),
        ["ret"] => Ok(Operation::Return),
        ["trap"] => Ok(Operation::Trap),
        ["bar", "sync"] if groups == [["0"]] => Ok(Operation::Barrier),
        ["bar", "warp", "sync"] => Ok(Operation::WarpBarrier),
        ["shfl", "sync", mode, "b32"] => {
            let (shuffle, bounds) = match *mode {
                "bfly" => (Shuffle::Butterfly, "31"),
                "up" => (Shuffle::Up, "0"),
                "down" => (Shuffle::Down, "31"),
                "idx" => (Shuffle::Index, "31"),
                _ => return Err(Reason::Unknown),
            };
            // Other bounds would cut the warp into segments.
            let is_whole_warp = groups.get(3).is_some_and(|group| *group == [bounds]);
            if is_whole_warp { Ok(Operation::Shuffle(shuffle)) } else { Err(Reason::Unknown) }
        }
        ["vote", "sync", "ballot", "b32"] => Ok(Operation::Vote(Vote::Ballot)),
        ["vote", "sync", "any", "pred"] => Ok(Operation::Vote(Vote::Any)),
        ["vote", "sync", "all", "pred"] => Ok(Operation::Vote(Vote::All)),
        ["redux", "sync", "add", "u32" | "s32"] => Ok(Operation::Reduce(Reduce::Add)),
        ["redux", "sync", "min", "u32"] => Ok(Operation::Reduce(Reduce::Least)),
        ["redux", "sync", "max", "u32"] => Ok(Operation::Reduce(Reduce::Greatest)),
        ["redux", "sync", "or", "b32"] => Ok(Operation::Reduce(Reduce::Or)),
        ["cp", "async", "ca" | "cg", "shared", "global"] => {
            let bytes = groups.get(2).and_then(|group| group[0].parse().ok()).ok_or(Reason::Unknown)?;
            match (parts[2], bytes) {
                ("ca", 4 | 8 | 16) | ("cg", 16) => Ok(Operation::Copy { bytes }),
                _ => Err(Reason::Unknown),
            }
        }
        ["cp", "async", "commit_group"] => Ok(Operation::CommitCopies),
        ["cp", "async", "wait_group"] => {
            let pending = groups.first().and_then(|group| group[0].parse().ok()).ok_or(Reason::Unknown)?;
            if pending < 8 { Ok(Operation::WaitForCopies { pending }) } else { Err(Reason::Unknown) }
        }
        ["ldmatrix", "sync", "aligned", "m8n8", count @ ("x2" | "x4"), rest @ .., "shared", "b16"] => {
            let transposed = match rest {
                [] => false,
                ["trans"] => true,
                _ => return Err(Reason::Unknown),
            };
            Ok(Operation::LoadMatrix { matrices: if *count == "x2" { 2 } else { 4 }, transposed })
        }
        ["mma", "sync", "aligned", shape, "row", "col", "f32", a, b, "f32"] if a == b => match (*shape, *a) {
            ("m16n8k16", "bf16") => Ok(Operation::Multiply(Multiply::Bf16)),
            ("m16n8k16", "f16") => Ok(Operation::Multiply(Multiply::F16)),
            ("m16n8k8", "tf32") => Ok(Operation::Multiply(Multiply::Tf32)),
            _ => Err(Reason::Unknown),
        },
        _ => Err(Reason::Unknown),
    }
}

/// Floats have `rn` in their opcode; without it they may be fused.
fn is_integer(kind: &str) -> Result<bool, Reason> {
    Ok(matches!(read_type(kind)?, Type::Signed(_) | Type::Unsigned(_)))
}

fn access(parts: &[&str]) -> Result<Access, Reason> {
    let (elements, kind) = match parts {
        [kind] => (1, kind),
        ["v2", kind] => (2, kind),
        ["v4", kind] => (4, kind),
        _ => return Err(Reason::Unknown),
    };
    let access = Access { elements, bytes: read_type(kind)?.bits() / 8 };
    if access.elements * access.bytes <= 16 { Ok(access) } else { Err(Reason::Unknown) }
}

fn atomic(name: &str, kind: &str) -> Result<Atomic, Reason> {
    match (name, kind) {
        ("add", "u32" | "u64") => Ok(Atomic::Add),
        ("min", "u32" | "u64") => Ok(Atomic::Least),
        ("max", "u32" | "u64") => Ok(Atomic::Greatest),
        ("or", "b32" | "b64") => Ok(Atomic::Or),
        ("exch", "b32" | "b64") => Ok(Atomic::Exchange),
        ("cas", "b32" | "b64") => Ok(Atomic::CompareExchange),
        _ => Err(Reason::Unknown),
    }
}

fn read_comparison(name: &str) -> Result<Compare, Reason> {
    Ok(match name {
        "eq" => Compare::Equal,
        "ne" => Compare::NotEqual,
        "lt" => Compare::Less,
        "le" => Compare::LessOrEqual,
        "gt" => Compare::Greater,
        "ge" => Compare::GreaterOrEqual,
        "equ" => Compare::EqualOrNan,
        "neu" => Compare::NotEqualOrNan,
        "ltu" => Compare::NotGreaterOrEqual,
        "leu" => Compare::NotGreater,
        "gtu" => Compare::NotLessOrEqual,
        "geu" => Compare::NotLess,
        "nan" => Compare::Nan,
        "num" => Compare::Number,
        _ => return Err(Reason::Unknown),
    })
}
