//! From text to instructions. Everything that is not known here is an error, so no instruction runs by half.

use crate::error::{ReadError, Reason};
use crate::instruction::{Entry, Instruction, Operand, Operation, Special};
use crate::opcode::{operation, read_type};
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
            // A kernel has one parameter, so the offset alone identifies what is read.
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
