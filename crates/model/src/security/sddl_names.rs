//! The short names of SDDL. Sources: MS docs, SID strings; ACE strings; Well-known SIDs.

/// Names of SIDs: the name, the authority, the numbers below it.
pub(super) const SIDS: [(&str, u64, &[u32]); 48] = [
    ("AA", 5, &[32, 579]),
    ("AC", 15, &[2, 1]),
    ("AN", 5, &[7]),
    ("AO", 5, &[32, 548]),
    ("AU", 5, &[11]),
    ("BA", 5, &[32, 544]),
    ("BG", 5, &[32, 546]),
    ("BO", 5, &[32, 551]),
    ("BU", 5, &[32, 545]),
    ("CD", 5, &[32, 574]),
    ("CG", 3, &[1]),
    ("CO", 3, &[0]),
    ("CY", 5, &[32, 569]),
    ("ED", 5, &[9]),
    ("ER", 5, &[32, 573]),
    ("ES", 5, &[32, 576]),
    ("HA", 5, &[32, 578]),
    ("HI", 16, &[0x3000]),
    ("HO", 5, &[32, 584]),
    ("IS", 5, &[32, 568]),
    ("IU", 5, &[4]),
    ("LS", 5, &[19]),
    ("LU", 5, &[32, 559]),
    ("LW", 16, &[0x1000]),
    ("ME", 16, &[0x2000]),
    ("MP", 16, &[0x2100]),
    ("MU", 5, &[32, 558]),
    ("NO", 5, &[32, 556]),
    ("NS", 5, &[20]),
    ("NU", 5, &[2]),
    ("OW", 3, &[4]),
    ("PO", 5, &[32, 550]),
    ("PS", 5, &[10]),
    ("PU", 5, &[32, 547]),
    ("RA", 5, &[32, 575]),
    ("RC", 5, &[12]),
    ("RD", 5, &[32, 555]),
    ("RE", 5, &[32, 552]),
    ("RM", 5, &[32, 580]),
    ("RU", 5, &[32, 554]),
    ("SH", 5, &[32, 585]),
    ("SI", 16, &[0x4000]),
    ("SO", 5, &[32, 549]),
    ("SS", 18, &[2]),
    ("SU", 5, &[6]),
    ("SY", 5, &[18]),
    ("WD", 1, &[0]),
    ("WR", 5, &[33]),
];

/// Names of SIDs that differ from one Windows domain or machine to the next: there is none here to take them from.
pub(super) const DOMAIN_SIDS: [&str; 18] =
    ["AP", "CA", "CN", "DA", "DC", "DD", "DG", "DU", "EA", "EK", "KA", "LA", "LG", "PA", "RO", "RS", "SA", "UD"];

/// Names of single rights, from the lowest bit to the highest, which is the order in which they are written.
pub(super) const RIGHTS: [(&str, u32); 17] = [
    ("CC", 0x0000_0001),
    ("DC", 0x0000_0002),
    ("LC", 0x0000_0004),
    ("SW", 0x0000_0008),
    ("RP", 0x0000_0010),
    ("WP", 0x0000_0020),
    ("DT", 0x0000_0040),
    ("LO", 0x0000_0080),
    ("CR", 0x0000_0100),
    ("SD", 0x0001_0000),
    ("RC", 0x0002_0000),
    ("WD", 0x0004_0000),
    ("WO", 0x0008_0000),
    ("GA", 0x1000_0000),
    ("GX", 0x2000_0000),
    ("GW", 0x4000_0000),
    ("GR", 0x8000_0000),
];

/// Names of sets of rights on files and registry keys, and of mandatory labels: read, never written.
pub(super) const RIGHT_SETS: [(&str, u32); 11] = [
    ("FA", 0x001f_01ff),
    ("FR", 0x0012_0089),
    ("FW", 0x0012_0116),
    ("FX", 0x0012_00a0),
    ("KA", 0x000f_003f),
    ("KR", 0x0002_0019),
    ("KW", 0x0002_0006),
    ("KX", 0x0002_0019),
    ("NW", 0x0000_0001),
    ("NR", 0x0000_0002),
    ("NX", 0x0000_0004),
];

/// Names of the flags of entries, in the order in which they are written.
pub(super) const ACE_FLAGS: [(&str, u8); 7] =
    [("OI", 0x01), ("CI", 0x02), ("NP", 0x04), ("IO", 0x08), ("ID", 0x10), ("SA", 0x40), ("FA", 0x80)];

/// Names of the flags of lists, in the order in which they are written.
pub(super) const DACL_FLAGS: [(&str, u16); 3] = [("P", 0x1000), ("AR", 0x0100), ("AI", 0x0400)];

/// The name of a null list.
pub(super) const NULL_ACL: &str = "NO_ACCESS_CONTROL";
