//! Parses the part of Python's pickle that describes tensors, as data.
//!
//! Nothing in a file is ever called: names of Python objects remain names, and
//! the few calls that PyTorch writes ("rebuild a tensor from …", "an ordered
//! dictionary") remain descriptions for the caller to interpret. All other opcodes
//! are refused. Values are stored in one arena and refer to each other by index,
//! so that depth and cycles of a hostile file are harmless.

/// Index of a value in its [`Pickle`].
pub(super) type Id = usize;

/// A value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// The stack's mark; never part of another value.
    Mark,
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little-endian: PyTorch's magic number.
    Long(Vec<u8>),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Keys and values in the order of the file.
    Dict(Vec<(Id, Id)>),
    /// `module name` of a Python object.
    Name(String),
    /// A call: a name and its arguments.
    Call {
        name: String,
        arguments: Id,
    },
    /// A reference to a storage, by its description.
    Persistent(Id),
}

/// The values of one pickle, and its result.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
    /// Bytes read.
    pub(super) length: usize,
}

/// Far more values than any state dict has.
const MAX_VALUES: usize = 1_000_000;
/// Maximum length of any text.
const MAX_TEXT: usize = 1 << 20;
/// Names of classes are copied into each object.
const MAX_CLASS: usize = 1 << 10;

impl Pickle {
    /// Reads the pickle at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            memo: std::collections::BTreeMap::new(),
        };
        let root = machine.run()?;
        Ok(Self {
            length: machine.at,
            values: machine.values,
            root,
        })
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::None)
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The elements of a tuple of sizes.
    pub(super) fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let items = self.tuple(id)?.iter();
        items.map(|&item| self.size(item)).collect()
    }

    /// Entries with text as keys; others are skipped.
    pub(super) fn entries(&self, id: Id) -> Option<Vec<(&str, Id)>> {
        let Value::Dict(entries) = self.get(id) else {
            return None;
        };
        let named = entries
            .iter()
            .filter_map(|&(k, v)| Some((self.text(k)?, v)));
        Some(named.collect())
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    memo: std::collections::BTreeMap<usize, Id>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let at = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                return self.pop();
            }
            self.step(code)
                .map_err(|why| format!("{why} (pickle byte {at})"))?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), String> {
        match code {
            // Frames and the protocol's version are not needed.
            0x80 => self.take(1).map(|_| ()),
            0x95 => self.take(8).map(|_| ()),
            b'(' => self.push(Value::Mark),
            b'0' => self.pop().map(|_| ()),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' | b'K' | b'M' | 0x8a | b'G' => self.number(code),
            b'X' | 0x8c | b'U' | b'T' | b'C' | b'B' => self.characters(code),
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items))
            }
            0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(code - 0x84));
                let from = from.ok_or("a tuple of too few values")?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items))
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(code),
            b'a' | b'e' | b's' | b'u' => self.fill(code),
            b'c' | 0x93 | b'R' | b'b' | b'Q' | 0x81 | 0x92 => self.described(code),
            other => Err(format!("instruction {other:#04x} describes no tensor")),
        }
    }

    fn number(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'K' => Value::Int(i64::from(self.take(1)?[0])),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            _ => {
                let length = usize::from(self.take(1)?[0]);
                long(self.take(length)?)
            }
        };
        self.push(value)
    }

    fn characters(&mut self, code: u8) -> Result<(), String> {
        let length = match code {
            0x8c | b'U' | b'C' => usize::from(self.take(1)?[0]),
            _ => u32::from_le_bytes(self.array()?) as usize,
        };
        if length > MAX_TEXT {
            return Err(format!("a name of {length} bytes"));
        }
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Value::Text(text))
    }

    /// Stores a value in the memo, or fetches one.
    fn remember(&mut self, code: u8) -> Result<(), String> {
        let key = match code {
            b'q' | b'h' => usize::from(self.take(1)?[0]),
            b'r' | b'j' => u32::from_le_bytes(self.array()?) as usize,
            _ => self.memo.len(),
        };
        if matches!(code, b'h' | b'j') {
            let id = self.memo.get(&key).ok_or("an unknown memo entry")?;
            self.stack.push(*id);
        } else {
            let top = self.stack.last().ok_or("it stores from an empty stack")?;
            self.memo.insert(key, *top);
        }
        Ok(())
    }

    /// Appends to a list or a dictionary.
    fn fill(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.marked()?,
        };
        let into = *self.stack.last().ok_or("it appends to nothing")?;
        match self.values.get_mut(into) {
            Some(Value::List(list)) if matches!(code, b'a' | b'e') => list.extend(items),
            Some(Value::Dict(entries)) if matches!(code, b's' | b'u') => {
                if !items.len().is_multiple_of(2) {
                    return Err("a key without a value".into());
                }
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err("it appends to neither a list nor a dictionary".into()),
        }
        Ok(())
    }

    /// Names, calls, states and storages, none of which is executed.
    fn described(&mut self, code: u8) -> Result<(), String> {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(class_name(&module, &name)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.values[module], &self.values[name]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let name = class_name(module, name)?;
                        self.push(name)
                    }
                    _ => Err("a name that is not text".into()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let Value::Name(name) = &self.values[function] else {
                    return Err("a call of something that is not a name".into());
                };
                let value = match name.as_str() {
                    "collections OrderedDict" => Value::Dict(Vec::new()),
                    _ => Value::Call {
                        name: name.clone(),
                        arguments,
                    },
                };
                self.push(value)
            }
            // A new object of a class, whose state follows.
            0x81 | 0x92 => {
                if code == 0x92 {
                    self.pop()?;
                }
                let (arguments, class) = (self.pop()?, self.pop()?);
                let name = self.class(class).ok_or("an object without a class")?;
                self.push(Value::Call { name, arguments })
            }
            // The state of an object: `_metadata` of a state dict. Not needed.
            _ => self.pop().map(|_| ()),
        }
    }

    /// The name of a class; the older format stores that of a model beside its source text.
    fn class(&self, id: Id) -> Option<String> {
        let stored = match &self.values[id] {
            Value::Persistent(inner) => match &self.values[*inner] {
                Value::Tuple(items) => *items.get(1)?,
                _ => return None,
            },
            _ => id,
        };
        match &self.values[stored] {
            Value::Name(name) => Some(name.clone()),
            _ => None,
        }
    }

    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let is_mark = |id: &Id| self.values[*id] == Value::Mark;
        let mark = self.stack.iter().rposition(is_mark).ok_or("no mark")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.stack.pop().ok_or("it takes from an empty stack")?)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let taken = self.bytes[self.at..].get(..count);
        let taken = taken.ok_or("it ends too early")?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        <[u8; N]>::try_from(bytes).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(MAX_TEXT)];
        let end = rest.iter().position(|b| *b == b'\n');
        let end = end.ok_or("a name without end")?;
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(text)
    }
}

/// Two's complement, little-endian, of any length.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Long(bytes.to_vec());
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(whole))
}

fn class_name(module: &str, name: &str) -> Result<Value, String> {
    match module.len() + name.len() {
        length if length > MAX_CLASS => Err(format!("a class name of {length} bytes")),
        _ => Ok(Value::Name(format!("{module} {name}"))),
    }
}
