//! DNS messages: from a client's bytes to a question, from an answer to bytes that fit.
//!
//! Whatever comes is either answered or dropped; nothing that does not come from a question is ever sent, so that two
//! servers cannot be made to talk to each other.

use std::net::IpAddr;

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype, StaticCompressor, Ttl,
        iana::{Class, Opcode, OptRcode, Rcode},
        message_builder::{AdditionalBuilder, PushError, RecordSectionBuilder},
        opt::{Opt, OptRecord},
        wire::Composer,
    },
    rdata::{A, Aaaa, Cname, Ns, Ptr, Soa, Srv, Txt},
};

use super::zone::{Answer, Data, Question, Record};

/// What an answer over UDP may have without EDNS.
const PLAIN_BYTES: usize = 512;
/// What it may have at most: no larger datagram is sent, so that none is split on its way.
const UDP_BYTES_MAX: usize = 1232;
/// What an answer over TCP may have.
const TCP_BYTES_MAX: usize = 65_535;
/// Bytes of the record that answers EDNS.
const OPT_BYTES: usize = 11;
/// Of a zone: how long its names that are not there may be kept, and what nobody here reads.
const SOA: [u32; 4] = [7200, 1800, 86_400, 5];

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    Tcp,
}

/// A question that was read.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    message: Message<&'a [u8]>,
    pub(super) question: Question,
    way: Way,
    edns: Option<usize>,
}

/// What there is no question in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Nothing that could be answered.
    Dropped,
    /// This is the answer.
    Refused(Vec<u8>, OptRcode),
}

impl<'a> Asked<'a> {
    /// Reads what a client sent.
    pub(super) fn read(bytes: &'a [u8], way: Way) -> Result<Self, Unreadable> {
        let message = Message::from_octets(bytes).map_err(|_| Unreadable::Dropped)?;
        let header = message.header();
        if header.qr() {
            return Err(Unreadable::Dropped);
        }
        let refuse = |rcode| Err(refused(&message, rcode, None));
        if header.opcode() != Opcode::QUERY {
            return refuse(OptRcode::NOTIMP);
        }
        let Ok(question) = message.sole_question() else { return refuse(OptRcode::FORMERR) };
        let Ok(opt) = opt(&message) else { return refuse(OptRcode::FORMERR) };
        let edns = opt.as_ref().map(|opt| usize::from(opt.udp_payload_size()));
        if opt.is_some_and(|opt| opt.version() != 0) {
            return Err(refused(&message, OptRcode::BADVERS, Some(UDP_BYTES_MAX)));
        }
        let kind = question.qtype();
        if question.qclass() != Class::IN || [Rtype::AXFR, Rtype::IXFR].contains(&kind) {
            return Err(refused(&message, OptRcode::REFUSED, edns));
        }
        let name = text(question.qname());
        Ok(Self { message, question: Question { name, kind }, way, edns })
    }

    /// Whether whoever asked wants others to be asked.
    pub(super) fn wants_recursion(&self) -> bool {
        self.message.header().rd()
    }

    /// What was sent.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.message.as_octets()
    }

    /// An answer without records.
    pub(super) fn refuse(&self, rcode: OptRcode) -> Vec<u8> {
        empty(&self.message, rcode, self.edns)
    }

    /// An answer, cut off where it would be too long. `recursion`: whether others can be asked here.
    pub(super) fn answer(&self, answer: &Answer, recursion: bool) -> (Vec<u8>, OptRcode) {
        let rcode = if answer.exists { Rcode::NOERROR } else { Rcode::NXDOMAIN };
        let bytes = self.build(answer, rcode, recursion).unwrap_or_else(|_| self.refuse(OptRcode::SERVFAIL));
        (bytes, rcode.into())
    }

    /// Whether it would have to be asked again by TCP.
    fn bytes_max(&self) -> usize {
        match (self.way, self.edns) {
            (Way::Tcp, _) => TCP_BYTES_MAX,
            (Way::Udp, None) => PLAIN_BYTES,
            (Way::Udp, Some(bytes)) => bytes.clamp(PLAIN_BYTES, UDP_BYTES_MAX),
        }
    }

    fn build(&self, answer: &Answer, rcode: Rcode, recursion: bool) -> Result<Vec<u8>, PushError> {
        let mut builder = MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(PLAIN_BYTES)))
            .map_err(|_| PushError::ShortBuf)?;
        let opt_bytes = if self.edns.is_some() { OPT_BYTES } else { 0 };
        builder.set_push_limit(self.bytes_max() - opt_bytes);
        let mut section = builder.start_answer(&self.message, rcode)?;
        section.header_mut().set_aa(true);
        section.header_mut().set_ra(recursion);
        let mut whole = true;
        for record in &answer.records {
            if push(&mut section, record, &answer.zone).is_err() {
                whole = false;
                break;
            }
        }
        let mut section = section.authority();
        if answer.records.is_empty() {
            let soa = Record { name: answer.zone.clone(), ttl: SOA[3], data: Data::Soa };
            whole &= push(&mut section, &soa, &answer.zone).is_ok();
        }
        let mut section = section.additional();
        for record in answer.more.iter().filter(|_| whole) {
            if push(&mut section, record, &answer.zone).is_err() {
                break;
            }
        }
        section.header_mut().set_tc(!whole);
        section.clear_push_limit();
        if self.edns.is_some() {
            edns(&mut section, OptRcode::from(rcode))?;
        }
        Ok(section.finish().into_target())
    }
}

/// The EDNS record of a message that can be read to its end.
fn opt<'a>(message: &Message<&'a [u8]>) -> Result<Option<OptRecord<&'a [u8]>>, ()> {
    let mut found = None;
    for record in message.additional().map_err(drop)? {
        let record = record.map_err(drop)?;
        if record.rtype() == Rtype::OPT {
            let opt = record.to_record::<Opt<_>>().map_err(drop)?.ok_or(())?;
            if found.replace(OptRecord::from_record(opt)).is_some() {
                return Err(());
            }
        }
    }
    Ok(found)
}

fn edns<T: Composer>(section: &mut AdditionalBuilder<T>, rcode: OptRcode) -> Result<(), PushError> {
    section.opt(|opt| {
        opt.set_udp_payload_size(u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX));
        opt.set_rcode(rcode);
        Ok(())
    })
}

fn refused(message: &Message<&[u8]>, rcode: OptRcode, with: Option<usize>) -> Unreadable {
    Unreadable::Refused(empty(message, rcode, with), rcode)
}

/// An answer that says why there is none.
fn empty(message: &Message<&[u8]>, rcode: OptRcode, with: Option<usize>) -> Vec<u8> {
    let mut section = MessageBuilder::new_vec().start_error(message, rcode.rcode()).additional();
    if with.is_some() {
        // There is always room: nothing else is in it.
        let _ = edns(&mut section, rcode);
    }
    section.finish()
}

/// A name as text, in lower case and without a dot at its end.
pub(super) fn text(name: &impl std::fmt::Display) -> String {
    name.to_string().trim_end_matches('.').to_ascii_lowercase()
}

/// Adds a record. One whose names are none is left out.
fn push<T>(section: &mut impl RecordSectionBuilder<T>, record: &Record, zone: &str) -> Result<(), PushError>
where
    T: Composer,
{
    let (Some(name), ttl) = (name(&record.name), Ttl::from_secs(record.ttl)) else { return Ok(()) };
    match &record.data {
        Data::Address(IpAddr::V4(ip)) => section.push((name, ttl, A::new(*ip))),
        Data::Address(IpAddr::V6(ip)) => section.push((name, ttl, Aaaa::new(*ip))),
        Data::Cname(to) => self::name(to).map_or(Ok(()), |to| section.push((name, ttl, Cname::new(to)))),
        Data::Ptr(to) => self::name(to).map_or(Ok(()), |to| section.push((name, ttl, Ptr::new(to)))),
        Data::Ns(to) => self::name(to).map_or(Ok(()), |to| section.push((name, ttl, Ns::new(to)))),
        Data::Srv { weight, port, target } => {
            self::name(target).map_or(Ok(()), |target| section.push((name, ttl, Srv::new(0, *weight, *port, target))))
        }
        Data::Text(text) => match Txt::<Vec<u8>>::build_from_slice(text.as_bytes()) {
            Ok(text) => section.push((name, ttl, text)),
            Err(_) => Ok(()),
        },
        Data::Soa => match soa(zone) {
            Some(soa) => section.push((name, ttl, soa)),
            None => Ok(()),
        },
    }
}

fn soa(zone: &str) -> Option<Soa<Name<Vec<u8>>>> {
    let [refresh, retry, expire, minimum] = SOA.map(Ttl::from_secs);
    let (server, mail) = (name(&format!("ns.dns.{zone}"))?, name(&format!("hostmaster.{zone}"))?);
    Some(Soa::new(server, mail, 1.into(), refresh, retry, expire, minimum))
}

pub(super) fn name(text: &str) -> Option<Name<Vec<u8>>> {
    Name::vec_from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use domain::base::message_builder::MessageBuilder;

    use super::*;

    /// A question as a client would write it; `edns`: the size that it says it takes.
    fn question(name: &str, kind: Rtype, edns: Option<u16>) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(7);
        builder.header_mut().set_rd(true);
        let mut section = builder.question();
        section.push((super::name(name).unwrap(), kind)).unwrap();
        let mut section = section.additional();
        if let Some(bytes) = edns {
            section
                .opt(|opt| {
                    opt.set_udp_payload_size(bytes);
                    Ok(())
                })
                .unwrap();
        }
        section.finish()
    }

    fn read(bytes: &[u8]) -> Result<Question, Option<OptRcode>> {
        match Asked::read(bytes, Way::Udp) {
            Ok(asked) => Ok(asked.question),
            Err(Unreadable::Dropped) => Err(None),
            Err(Unreadable::Refused(answer, rcode)) => {
                let answer = Message::from_octets(answer).unwrap();
                assert_eq!((answer.header().qr(), answer.opt_rcode()), (true, rcode));
                Err(Some(rcode))
            }
        }
    }

    #[test]
    fn questions_are_read_and_whatever_else_comes_is_not_answered_as_one() {
        let good = question("Web.Shop.svc.cluster.local", Rtype::A, Some(4096));
        let expected = Question { name: "web.shop.svc.cluster.local".to_owned(), kind: Rtype::A };
        assert_eq!(read(&good), Ok(expected));
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            read(&bytes)
        };
        let formerr = Err(Some(OptRcode::FORMERR));
        assert_eq!(with(|bytes| bytes.truncate(11)), Err(None), "no header");
        assert_eq!(with(|bytes| bytes[2] |= 0x80), Err(None), "an answer");
        assert_eq!(with(|bytes| bytes[2] |= 0x28), Err(Some(OptRcode::NOTIMP)), "an update");
        assert_eq!(with(|bytes| bytes.truncate(20)), formerr, "half a question");
        assert_eq!(with(|bytes| bytes.truncate(bytes.len() - 1)), formerr, "half a record");
        assert_eq!(with(|bytes| bytes[5] = 2), formerr, "two questions");
        assert_eq!(with(|bytes| bytes[5] = 0), formerr, "none");
        assert_eq!(with(|bytes| bytes[11] = 9), formerr, "records that are not there");
        assert_eq!(with(|bytes| bytes[12] = 0xff), formerr, "a pointer to nowhere");
        assert_eq!(with(|bytes| (bytes[12], bytes[13]) = (0xc0, 0x0c)), formerr, "a name that is within itself");
        let twice = |bytes: &mut Vec<u8>| {
            let opt = bytes[bytes.len() - OPT_BYTES..].to_vec();
            bytes.extend(opt);
            bytes[11] = 2;
        };
        assert_eq!(with(twice), formerr, "EDNS twice");
        let version = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - 5;
            bytes[at] = 1;
        };
        assert_eq!(with(version), Err(Some(OptRcode::BADVERS)));
        let class = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - OPT_BYTES - 1;
            bytes[at] = 3;
        };
        assert_eq!(with(class), Err(Some(OptRcode::REFUSED)), "chaos");
        assert_eq!(read(&question("cluster.local", Rtype::AXFR, None)), Err(Some(OptRcode::REFUSED)));
    }

    /// Many addresses, and what becomes of them.
    fn many(count: u8, way: Way, edns: Option<u16>) -> (usize, bool, usize, bool) {
        let bytes = question("db.shop.svc.cluster.local", Rtype::A, edns);
        let asked = Asked::read(&bytes, way).unwrap();
        let record = |last| Record {
            name: "db.shop.svc.cluster.local".to_owned(),
            ttl: 5,
            data: Data::Address([10, 244, 0, last].into()),
        };
        let records = (0..count).map(record).collect();
        let answer = Answer { exists: true, zone: "cluster.local".to_owned(), records, ..Answer::default() };
        let (bytes, _) = asked.answer(&answer, false);
        let answer = Message::from_octets(bytes).unwrap();
        assert_eq!((answer.header().id(), answer.header().aa()), (7, true));
        let size = answer.opt().map(|opt| opt.udp_payload_size());
        assert_eq!(size, edns.map(|_| 1232), "who knows EDNS is answered with it");
        let read = answer.answer().unwrap().filter(|record| record.is_ok()).count();
        (read, answer.header().tc(), answer.as_slice().len(), answer.opt().is_some())
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_said_to_be() {
        for (count, way, edns, all, bytes_max) in [
            (20, Way::Udp, None, true, 512),
            (60, Way::Udp, None, false, 512),
            (60, Way::Udp, Some(1232), true, 1232),
            (60, Way::Udp, Some(600), false, 600),
            (60, Way::Udp, Some(100), false, 512),
            (200, Way::Udp, Some(65_535), false, 1232),
            (200, Way::Tcp, None, true, 65_535),
            (200, Way::Tcp, Some(512), true, 65_535),
        ] {
            let (read, cut, bytes, _) = many(count, way, edns);
            assert_eq!((read == usize::from(count), !cut), (all, all), "{count} {way:?} {edns:?}");
            assert!(bytes <= bytes_max, "{count} {way:?} {edns:?}: {bytes}");
            assert!(all || bytes + 16 > bytes_max, "what fits is there: {bytes} of {bytes_max}");
        }
    }

    #[test]
    fn what_is_not_there_comes_with_the_zone_that_says_so() {
        for (exists, rcode) in [(false, Rcode::NXDOMAIN), (true, Rcode::NOERROR)] {
            let bytes = question("x.cluster.local", Rtype::A, None);
            let answer = Answer { exists, zone: "cluster.local".to_owned(), ..Answer::default() };
            let (bytes, _) = Asked::read(&bytes, Way::Udp).unwrap().answer(&answer, true);
            let answer = Message::from_octets(bytes).unwrap();
            assert_eq!((answer.header().rcode(), answer.header().ra()), (rcode, true));
            let soa = answer.authority().unwrap().limit_to::<Soa<_>>().next().unwrap().unwrap();
            assert_eq!((soa.owner().to_string(), soa.ttl().as_secs()), ("cluster.local".to_owned(), 5));
            assert_eq!(soa.data().mname().to_string(), "ns.dns.cluster.local");
        }
    }

    #[test]
    fn nothing_that_comes_makes_it_panic() {
        let good = question("_http._tcp.web.shop.svc.cluster.local", Rtype::SRV, Some(1232));
        for at in 0..good.len() {
            for bits in [0x01, 0x40, 0x80, 0xc0, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= bits;
                let _ = read(&bytes);
                let _ = read(&bytes[..at]);
            }
        }
    }
}
