//! Security descriptors as text, in and out.

use openwfp_model::security::{AccessRights, Ace, AceFlags, AceKind, Dacl, DaclFlags, SddlProblem};
use openwfp_model::{SecurityDescriptor, Sid};
use proptest::prelude::*;

fn read(text: &str) -> SecurityDescriptor {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What is written as it is read: names where there are names.
#[test]
fn text_and_back() {
    for text in [
        "D:",
        "O:SY",
        "O:SYG:SY",
        "D:(A;;CC;;;WD)",
        "O:SYG:SYD:(A;;CCRC;;;S-1-5-80-2009329905-444645132-2728249442-922493431-93864177)",
        "O:SYG:SYD:(A;;CCRC;;;S-1-5-21-1-2-3-1001)(A;;CCRC;;;AC)(A;;CCRC;;;S-1-15-3-1)",
        "O:S-1-22-1-0G:S-1-22-2-0D:PAI(D;OICIIO;GA;;;AN)(A;NPID;0x1f01ff;;;BA)",
        "O:BAG:SYD:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;BA)(A;;GXGWGR;;;LS)(A;;;;;NS)",
        r#"O:SYG:SYD:(XA;;CC;;;WD;(WIN://SYSAPPID Contains "App_8wekyb3d8bbwe"))(A;;CC;;;S-1-15-3-1)"#,
        r#"D:(XD;;0x120089;;;WD;(@User.Title=="P(M;" && (@User.Division=="Finance")))"#,
        "D:NO_ACCESS_CONTROL",
        "D:PNO_ACCESS_CONTROL",
    ] {
        assert_eq!(read(text).to_string(), text);
    }
}

/// What is read though it is written in another way.
#[test]
fn other_ways_to_write_it() {
    for (text, written) in [
        (" O: SY G: SY D: P ( A ; ; CC ; ; ; WD ) \n (D;;0x1;;;AN)", "O:SYG:SYD:P(A;;CC;;;WD)(D;;CC;;;AN)"),
        ("d:(a;np;ccrc;;;wd)", "D:(A;NP;CCRC;;;WD)"),
        ("D:(A;;1;;;S-1-1-0)", "D:(A;;CC;;;WD)"),
        ("D:(A;;FAKA;;;S-1-5-18)", "D:(A;;0x1f01ff;;;SY)"),
        ("D:AIO:S-1-5-18", "O:SYD:AI"),
        ("D:(A;;CC;;;WD)S:NO_ACCESS_CONTROL", "D:(A;;CC;;;WD)"),
        ("D:(A;;CC;;;WD)S:", "D:(A;;CC;;;WD)"),
    ] {
        assert_eq!(read(text).to_string(), written, "{text}");
    }
}

/// MS docs: ACE strings, the example.
#[test]
fn the_example_of_the_documentation() {
    let descriptor = read("D:(A;;RPWPCCDCLCSWRCWDWOGA;;;S-1-1-0)");
    let aces = descriptor.dacl.unwrap().aces.unwrap();
    let [ace] = aces.as_slice() else { panic!("one entry") };
    assert_eq!((ace.kind, ace.flags, ace.rights.bits()), (AceKind::Allow, AceFlags::empty(), 0x100e_003f));
    assert_eq!(ace.sid, Sid::everyone());
}

#[test]
fn text_that_is_refused() {
    let name = |name: &str| name.to_owned();
    for (text, at, problem) in [
        ("", 0, SddlProblem::Empty),
        ("  ", 2, SddlProblem::Empty),
        ("everyone", 0, SddlProblem::NotAPart),
        ("X:SY", 0, SddlProblem::NotAPart),
        ("O:SYO:SY", 4, SddlProblem::Twice('O')),
        ("O:ROOT", 2, SddlProblem::Sid(name("ROOT"))),
        ("O:", 2, SddlProblem::Sid(name(""))),
        ("O:DA", 2, SddlProblem::DomainSid(name("DA"))),
        ("O:é:", 2, SddlProblem::Sid(name(""))),
        ("D:X(A;;CC;;;WD)", 2, SddlProblem::DaclFlag(name("X(A;;CC;;;WD)"))),
        ("D:NO_ACCESS_CONTROL(A;;CC;;;WD)", 19, SddlProblem::EntriesOfNull),
        ("D:S:(AU;SA;CC;;;WD)", 4, SddlProblem::AuditList),
        ("D:(A;;CC;;;WD", 2, SddlProblem::Unclosed),
        ("D:(A;;CC;;;\"WD)", 2, SddlProblem::Unclosed),
        ("D:()", 3, SddlProblem::Fields(1)),
        ("D:(A;;CC;;WD)", 3, SddlProblem::Fields(5)),
        ("D:(AU;;CC;;;WD)", 3, SddlProblem::Kind(name("AU"))),
        ("D:(A;ZZ;CC;;;WD)", 5, SddlProblem::AceFlag(name("ZZ"))),
        ("D:(A;;CCX;;;WD)", 6, SddlProblem::Right(name("X"))),
        ("D:(A;;cé;;;WD)", 6, SddlProblem::Right(name("cé"))),
        ("D:(A;;0x;;;WD)", 6, SddlProblem::Right(name("0x"))),
        ("D:(A;;0x+1;;;WD)", 6, SddlProblem::Right(name("0x+1"))),
        ("D:(A;;0x100000000;;;WD)", 6, SddlProblem::Right(name("0x100000000"))),
        ("D:(A;;CC;bf967aba-0de6-11d0-a285-00aa003049e2;;WD)", 9, SddlProblem::ObjectType),
        ("D:(A;;CC;;;)", 11, SddlProblem::Sid(name(""))),
        ("D:(A;;CC;;; WW)", 12, SddlProblem::Sid(name("WW"))),
        ("D:(XA;;CC;;;WD)", 3, SddlProblem::Condition),
        ("D:(A;;CC;;;WD;(x))", 14, SddlProblem::Condition),
        ("D:(A;;CC;;;WD) x", 15, SddlProblem::NotAPart),
    ] {
        let error = text.parse::<SecurityDescriptor>().expect_err(text);
        assert_eq!((error.at, error.problem), (at, problem), "{text}");
    }
}

fn sid() -> impl Strategy<Value = Sid> {
    let parts = (0..=0xffff_ffff_ffffu64, prop::collection::vec(any::<u32>(), 0..=15));
    let unknown = parts.prop_map(|(authority, numbers)| Sid::new(authority, &numbers).expect("within its bounds"));
    let known = prop_oneof![Just("WD"), Just("SY"), Just("BA"), Just("AC")];
    let known = known.prop_map(|name| read(&format!("O:{name}")).owner.expect("the owner that was written"));
    prop_oneof![unknown, known, any::<u32>().prop_map(Sid::from_uid), any::<u32>().prop_map(Sid::from_gid)]
}

fn ace() -> impl Strategy<Value = Ace> {
    let kind = prop_oneof![Just(AceKind::Allow), Just(AceKind::Deny)];
    let flags = any::<u8>().prop_map(AceFlags::from_bits_truncate);
    let rights = prop_oneof![Just(0x1), Just(0x2_0001), any::<u32>()].prop_map(AccessRights::from_bits_retain);
    let condition = prop::option::weighted(0.2, r#"\([a-z@. ]{0,8}"[a-z();]{0,8}"\)"#);
    (kind, flags, rights, sid(), condition).prop_map(|(kind, flags, rights, sid, condition)| Ace {
        flags,
        condition,
        ..Ace::new(kind, rights, sid)
    })
}

fn descriptor() -> impl Strategy<Value = SecurityDescriptor> {
    let flags = any::<u16>().prop_map(DaclFlags::from_bits_truncate);
    let aces = prop::option::weighted(0.9, prop::collection::vec(ace(), 0..6));
    let dacl = prop::option::weighted(0.9, (flags, aces).prop_map(|(flags, aces)| Dacl { flags, aces }));
    (prop::option::of(sid()), prop::option::of(sid()), dacl)
        .prop_map(|(owner, group, dacl)| SecurityDescriptor { owner, group, dacl })
        .prop_filter("a descriptor of nothing has no text", |descriptor| *descriptor != SecurityDescriptor::default())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_descriptor_survives_its_text(descriptor in descriptor()) {
        let text = descriptor.to_string();
        prop_assert_eq!(read(&text), descriptor, "{}", text);
    }

    #[test]
    fn every_sid_survives_its_text(sid in sid()) {
        prop_assert_eq!(sid.to_string().parse(), Ok(sid));
    }

    #[test]
    fn no_text_is_too_strange(text in r#"([OGDS]:)?[A-Z(;)" é0x-]{0,40}"#) {
        let _ = text.parse::<SecurityDescriptor>();
        let _ = text.parse::<Sid>();
    }
}
