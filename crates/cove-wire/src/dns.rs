//! As much of the DNS as carrying it takes (RFC 1035, RFC 6891): what a question asks, answers of addresses and of
//! failures, and how long an answer holds. Both ends read messages with this that strangers wrote.
//!
//! Between guest and host, messages travel as they do over TCP: each after its length as a 16-bit big-endian number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest message: its length is a 16-bit number.
pub const MAX_MESSAGE: usize = u16::MAX as usize;
/// Questions of a guest that are under way on the host at once. Further ones wait in the connection.
pub const MOST_QUESTIONS: usize = 448;
/// Largest message over UDP to somebody who has not said more.
const PLAIN_PAYLOAD: u16 = 512;
/// Largest message over UDP that is asked for: it fits every way's packets (RFC 9715, section 3).
const ASKED_PAYLOAD: u16 = 1232;

/// An IPv4 address.
pub const A: u16 = 1;
/// The name of an address.
pub const PTR: u16 = 12;
/// An IPv6 address.
pub const AAAA: u16 = 28;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const OPT: u16 = 41;
/// Every type at once; only questions have it.
const ANY: u16 = 255;
const IN: u16 = 1;

const HEADER: usize = 12;
/// Type and class, which follow a question's name.
const KIND_AND_CLASS: usize = 4;
/// The flag in EDNS that asks for signatures.
const DO: u16 = 0x8000;
/// Longest name on the wire.
const MAX_NAME: usize = 255;
/// Most addresses of an answer that is made here.
const MOST_ADDRESSES: usize = 32;
/// What tells a pointer to a name from a label's length.
const POINTER: u16 = 0xc000;

// The first of the header's two bytes of flags.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
// The second.
const RA: u8 = 0x80;
const AD: u8 = 0x20;
const CD: u8 = 0x10;
const RCODE: u8 = 0x0f;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Well; there may be no record all the same.
    NoError = 0,
    /// The question is malformed.
    FormatError = 1,
    /// Nobody could be asked, or nobody answered.
    ServerFailure = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// Only queries are answered.
    NotImplemented = 4,
}

/// Why a message is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no request, or too short to be answered at all.
    #[error("not a DNS request")]
    NoRequest,
    /// It can be answered with this failure only.
    #[error("a DNS request that cannot be answered")]
    Bad(Code),
}

/// A question, borrowed from its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'m> {
    message: &'m [u8],
    /// Name, type and class as they stand in the message.
    question: &'m [u8],
    /// The name in lower case, without the final dot; bytes that a host name has not are escaped.
    pub name: String,
    /// The record type asked for, such as [`A`].
    pub kind: u16,
    class: u16,
    /// What the asker's EDNS says: its largest UDP message, and its flags.
    edns: Option<(u16, u16)>,
}

impl<'m> Query<'m> {
    /// Reads a request with one question.
    pub fn parse(message: &'m [u8]) -> Result<Self, Malformed> {
        if message.len() < HEADER || message[2] & QR != 0 {
            return Err(Malformed::NoRequest);
        }
        if message[2] & OPCODE != 0 {
            return Err(Malformed::Bad(Code::NotImplemented));
        }
        let bad = Malformed::Bad(Code::FormatError);
        let [questions, answers, authorities, additional] = counts(message);
        if questions != 1 || answers != 0 || authorities != 0 {
            return Err(bad);
        }
        let (name, end) = question_name(message).ok_or(bad)?;
        let kind = number(message, end).ok_or(bad)?;
        let class = number(message, end + 2).ok_or(bad)?;
        let question = &message[HEADER..end + KIND_AND_CLASS];
        let mut edns = None;
        let mut records = Records {
            message,
            at: end + KIND_AND_CLASS,
            left: usize::from(additional),
        };
        for record in &mut records {
            let record = record.ok_or(bad)?;
            if record.kind == OPT {
                let flags = number(message, record.ttl + 2).ok_or(bad)?;
                edns = Some((record.class, flags));
            }
        }
        Ok(Self {
            message,
            question,
            name,
            kind,
            class,
            edns,
        })
    }

    /// Whether an address in the Internet's class is asked for, and of which family.
    pub fn asks_for_address(&self) -> bool {
        self.class == IN && matches!(self.kind, A | AAAA)
    }

    /// The address whose name is asked for, if it is one (RFC 1035, section 3.5; RFC 3596, section 2.5).
    pub fn asks_for_name(&self) -> Option<IpAddr> {
        (self.class == IN && self.kind == PTR).then_some(())?;
        if let Some(octets) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets: Vec<&str> = octets.split('.').collect();
            octets.reverse();
            return octets.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
        }
        let mut bits: u128 = 0;
        let mut count = 0;
        // The least digit comes first.
        for digit in self.name.strip_suffix(".ip6.arpa")?.rsplit('.') {
            let [digit] = digit.as_bytes() else { return None };
            bits = (bits << 4) | u128::from(char::from(*digit).to_digit(16)?);
            count += 1;
        }
        (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
    }

    /// The asker's own number for it.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.message[0], self.message[1]])
    }

    /// What two questions have in common that the same answer fits: all that [`Query::anew`] carries but for the number
    /// and the spelling.
    pub fn key(&self) -> Vec<u8> {
        let mut key = self.anew(0);
        if let Some(name) = key.get_mut(HEADER..HEADER + self.question.len() - KIND_AND_CLASS) {
            name.make_ascii_lowercase();
        }
        key
    }

    /// The question as it is asked of others, with the number `id`. Of what else its asker wrote only the flags are in
    /// it that say what answer is wanted: anything more, such as whose subnet to answer for (RFC 7871), would make an
    /// answer that is given to everybody one that an asker has shaped.
    pub fn anew(&self, id: u16) -> Vec<u8> {
        let mut message = request(id, self.message[2] & RD, self.message[3] & (AD | CD));
        message.extend(self.question);
        if let Some((_, flags)) = self.edns {
            message[11] = 1;
            message.push(0);
            message.extend(OPT.to_be_bytes());
            message.extend(ASKED_PAYLOAD.to_be_bytes());
            message.extend(u32::from(flags & DO).to_be_bytes());
            message.extend([0, 0]);
        }
        message
    }

    /// Whether `message` answers this question, as far as number and question tell.
    pub fn is_answered_by(&self, message: &[u8]) -> bool {
        let question = message.get(HEADER..HEADER + self.question.len());
        message.get(..2) == self.message.get(..2)
            && message.get(2).is_some_and(|flags| flags & QR != 0)
            && counts(message)[0] == 1
            && question.is_some_and(|question| is_same(question, self.question))
    }

    /// An answer of those of `addresses` that are of the family asked for, which hold for `ttl` seconds.
    pub fn answer(&self, addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
        let mut message = self.reply(0, Code::NoError);
        self.push_addresses(&mut message, HEADER, addresses, ttl);
        message
    }

    /// An answer that the name asked for is another one of `name`, which has those of `addresses` that are of the family
    /// asked for, for `ttl` seconds. Nothing if messages cannot have that name.
    pub fn answer_alias(&self, name: &str, addresses: &[IpAddr], ttl: u32) -> Option<Vec<u8>> {
        let name = on_the_wire(name)?;
        let mut message = self.reply(0, Code::NoError);
        push_record(&mut message, HEADER, CNAME, ttl, &name);
        let owner = message.len() - name.len();
        self.push_addresses(&mut message, owner, addresses, ttl);
        Some(message)
    }

    /// An answer that the address asked for is called `name`, for `ttl` seconds. Nothing if messages cannot have that
    /// name.
    pub fn answer_name(&self, name: &str, ttl: u32) -> Option<Vec<u8>> {
        let name = on_the_wire(name)?;
        let mut message = self.reply(0, Code::NoError);
        push_record(&mut message, HEADER, PTR, ttl, &name);
        Some(message)
    }

    /// An answer without a record.
    pub fn failure(&self, code: Code) -> Vec<u8> {
        self.reply(0, code)
    }

    /// `answer` as the asker can take it over UDP: whole, or an invitation to ask again over TCP.
    pub fn fit_datagram(&self, answer: Vec<u8>) -> Vec<u8> {
        let most = self
            .edns
            .map_or(PLAIN_PAYLOAD, |(payload, _)| payload.max(PLAIN_PAYLOAD));
        if answer.len() <= usize::from(most) {
            answer
        } else {
            self.reply(TC, Code::NoError)
        }
    }

    /// Appends the addresses of the family asked for to an answer, under the name that stands at `owner` in it.
    fn push_addresses(&self, message: &mut Vec<u8>, owner: usize, addresses: &[IpAddr], ttl: u32) {
        let of_the_family = addresses.iter().filter_map(|address| match (address, self.kind) {
            (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
            _ => None,
        });
        for octets in of_the_family.take(MOST_ADDRESSES) {
            push_record(message, owner, self.kind, ttl, &octets);
        }
    }

    /// A reply with the question and nothing else.
    fn reply(&self, flags: u8, code: Code) -> Vec<u8> {
        let mut message = self.message[..2].to_vec();
        message.extend([QR | flags | self.message[2] & RD, RA | code as u8]);
        message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend(self.question);
        message
    }

    /// Makes a kept `answer` to the same question this one's: its number, and its spelling of the name.
    pub fn adopt(&self, answer: &mut [u8]) {
        set_id(answer, self.id());
        if let Some(question) = answer.get_mut(HEADER..HEADER + self.question.len()) {
            question.copy_from_slice(self.question);
        }
    }
}

/// A question for the addresses of a name, of the family that `kind` says, [`A`] or [`AAAA`]. Nothing if it is no name
/// that could be asked for.
pub fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = request(id, RD, 0);
    message.extend(on_the_wire(name)?);
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    Some(message)
}

/// The header of a request with one question.
fn request(id: u16, flags: u8, further: u8) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([flags, further, 0, 1, 0, 0, 0, 0, 0, 0]);
    message
}

/// Whether two questions of one length ask the same. Names have no case; types and classes are numbers.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let name = other.len().saturating_sub(KIND_AND_CLASS);
    one.eq_ignore_ascii_case(other) && one.get(name..) == other.get(name..)
}

/// Appends a record to an answer, whose name stands at `owner` in it. What is appended here is far shorter than
/// messages may be.
fn push_record(message: &mut Vec<u8>, owner: usize, kind: u16, ttl: u32, data: &[u8]) {
    let pointer = POINTER | u16::try_from(owner).unwrap_or_default();
    message.extend(pointer.to_be_bytes());
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    message.extend(ttl.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
    message.extend(data);
    let answers = counts(message)[1] + 1;
    message[6..8].copy_from_slice(&answers.to_be_bytes());
}

/// A name as messages have it: each label after its length. Nothing if it is none.
fn on_the_wire(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    (bytes.len() <= MAX_NAME).then_some(bytes)
}

/// The addresses in an answer, whatever names they belong to: aliases have been followed by whoever answered. Those that
/// come beside it, in the other sections, are of name servers.
pub fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for record in found_records(answer) {
        let data = answer.get(record.ttl + 6..record.end).unwrap_or_default();
        match (record.kind, record.class) {
            (A, IN) => found.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            (AAAA, IN) => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
    }
    found
}

/// The failure that a request is answered with which [`Query::parse`] could not read.
pub fn refuse(message: &[u8], code: Code) -> Vec<u8> {
    let mut reply = message.get(..2).unwrap_or(&[0, 0]).to_vec();
    reply.extend([QR, RA | code as u8]);
    reply.extend([0; 8]);
    reply
}

/// Gives a message another number.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

/// A message's number.
pub fn id(message: &[u8]) -> Option<u16> {
    number(message, 0)
}

/// Whether an answer was cut off.
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & TC != 0)
}

/// Whether an answer is one: records, or the certainty that there are none. Anything else somebody else may know.
pub fn is_conclusive(message: &[u8]) -> bool {
    let code = message.get(3).map(|flags| flags & RCODE);
    code == Some(Code::NoError as u8) || code == Some(Code::NoSuchName as u8)
}

/// Whether an answer says that there is no such name.
pub fn is_no_such_name(message: &[u8]) -> bool {
    message.get(3).map(|flags| flags & RCODE) == Some(Code::NoSuchName as u8)
}

/// Whether an answer is the certainty that there is no such name, or no such record of it. An alias may have been found
/// all the same, of a name that has none (RFC 2308, sections 2.1 and 2.2).
pub fn is_negative(message: &[u8]) -> bool {
    is_no_such_name(message) || is_conclusive(message) && !has_what_was_asked_for(message)
}

fn has_what_was_asked_for(answer: &[u8]) -> bool {
    let asked = skip_name(answer, HEADER).and_then(|end| number(answer, end));
    found_records(answer).any(|record| asked == Some(ANY) || asked == Some(record.kind))
}

/// For how many seconds an answer holds: as long as its shortest-lived record (RFC 2308 for the lack of any). Nothing
/// for one that must not be kept.
pub fn lifetime(answer: &[u8]) -> Option<u32> {
    if !is_conclusive(answer) || is_truncated(answer) {
        return None;
    }
    let mut least = None::<u32>;
    for record in answer_records(answer)? {
        let record = record?;
        if record.kind == OPT {
            continue;
        }
        let mut ttl = long_number(answer, record.ttl)?;
        if record.kind == SOA {
            // The last of its fields is the time that the lack of a record holds.
            ttl = ttl.min(long_number(answer, record.end.checked_sub(4)?)?);
        }
        least = Some(least.map_or(ttl, |least| least.min(ttl)));
    }
    least
}

/// Lets a kept answer be `seconds` older.
pub fn age(answer: &mut [u8], seconds: u32) {
    let places: Vec<usize> = answer_records(answer)
        .into_iter()
        .flatten()
        .map_while(|record| record)
        .filter(|record| record.kind != OPT)
        .map(|record| record.ttl)
        .collect();
    for place in places {
        if let Some(ttl) = long_number(answer, place) {
            answer[place..place + 4].copy_from_slice(&ttl.saturating_sub(seconds).to_be_bytes());
        }
    }
}

/// The records of an answer's first section, up to one that is malformed: what was found.
fn found_records(answer: &[u8]) -> impl Iterator<Item = Record> {
    answer_records(answer)
        .into_iter()
        .flatten()
        .take(counts(answer)[1].into())
        .map_while(|record| record)
}

/// All records of an answer.
fn answer_records(message: &[u8]) -> Option<Records<'_>> {
    if message.len() < HEADER {
        return None;
    }
    let [questions, further @ ..] = counts(message);
    let mut at = HEADER;
    for _ in 0..questions {
        at = skip_name(message, at)? + KIND_AND_CLASS;
    }
    Some(Records {
        message,
        at,
        left: further.into_iter().map(usize::from).sum(),
    })
}

/// A record: where it is in its message.
#[derive(Debug, Clone, Copy)]
struct Record {
    kind: u16,
    class: u16,
    /// Where its four bytes of time to live are.
    ttl: usize,
    /// Where the next one begins.
    end: usize,
}

/// The records of a message; nothing in place of the first that is malformed, which is the last then.
struct Records<'m> {
    message: &'m [u8],
    at: usize,
    left: usize,
}

impl Iterator for Records<'_> {
    type Item = Option<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = || {
            let fixed = skip_name(self.message, self.at)?;
            let end = fixed + 10 + usize::from(number(self.message, fixed + 8)?);
            (end <= self.message.len()).then_some(())?;
            Some(Record {
                kind: number(self.message, fixed)?,
                class: number(self.message, fixed + 2)?,
                ttl: fixed + 4,
                end,
            })
        };
        let record = record();
        match record {
            Some(record) => self.at = record.end,
            None => self.left = 0,
        }
        Some(record)
    }
}

/// How many questions, answers, authorities and additional records a header announces. The message has one.
fn counts(message: &[u8]) -> [u16; 4] {
    [4, 6, 8, 10].map(|at| number(message, at).unwrap_or(0))
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn long_number(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Where the name that begins at `at` ends. A pointer ends it, and need not be followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The question's name, and where it ends. Nothing points backwards from there, so that a pointer is an error.
fn question_name(message: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 || at + length - HEADER > MAX_NAME {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in message.get(at..at + length)? {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    name.push(char::from(byte.to_ascii_lowercase()));
                }
                other => name.extend(["\\".to_owned(), format!("{other:03}")]),
            }
        }
        at += length;
    }
    Some((name, at))
}

#[cfg(test)]
mod tests;
