//! Packets of openwfp.

pub mod capture;
pub mod flow;
pub mod fragments;
pub mod link;
pub mod local;
pub mod packet;
pub mod replay;
pub mod time;
pub mod wire;
