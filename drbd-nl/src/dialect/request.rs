//! Builds requests.

use super::Dialect;
use super::decode::meta_wire;
use crate::model::{
    AddressPair, DeviceOptions, DiskOptions, MetaDisk, Minor, NetOptions, NodeId,
    PeerDeviceOptions, ResourceName, ResourceOptions, Text, VolumeNumber,
};
use crate::op::Base;
use crate::schema::{
    self, MANDATORY, NO_MINOR, SET_DEFAULTS, cfg_context as ctx, cmd, disk_conf, tla,
};
use crate::wire::{
    Endian, MessageBuilder, NLA_F_NESTED, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, Nest, WireError,
};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One message to send; everything but family, sequence number and port.
#[derive(Debug)]
pub(crate) struct Request<E> {
    pub(crate) command: u8,
    flags: u16,
    minor: u32,
    drbd_flags: u32,
    build: Vec<Part>,
    order: PhantomData<E>,
    dialect: Dialect,
    /// A parameter did not fit.
    overflow: bool,
}

#[derive(Debug)]
enum Part {
    Context {
        resource: Option<ResourceName>,
        volume: Option<VolumeNumber>,
        peer_node_id: Option<NodeId>,
        addresses: Option<AddressPair>,
    },
    Disk {
        backing: Option<(Vec<u8>, Vec<u8>, i32)>,
        options: Box<DiskOptions>,
    },
    Resource {
        node_id: Option<NodeId>,
        options: ResourceOptions,
    },
    Net {
        name: Option<Text>,
        /// One-shot flag of 8.4's connect.
        flag: Option<u16>,
        options: Box<NetOptions>,
    },
    PeerDevice(PeerDeviceOptions),
    /// Parameters of one command, encoded; left out when empty.
    Parameters {
        tla: u16,
        payload: Vec<u8>,
    },
    Path(AddressPair),
    /// A nest with one flag, set.
    Flag {
        tla: u16,
        number: u16,
    },
}

impl<E: Endian> Request<E> {
    fn new(dialect: Dialect, command: u8) -> Self {
        Self {
            command,
            flags: NLM_F_REQUEST,
            minor: NO_MINOR,
            drbd_flags: 0,
            build: Vec::new(),
            order: PhantomData,
            dialect,
            overflow: false,
        }
    }

    fn minor(mut self, minor: Minor) -> Self {
        self.minor = minor.0;
        self
    }

    fn base(mut self, base: Base) -> Self {
        if base == Base::Defaults {
            self.drbd_flags |= SET_DEFAULTS;
        }
        self
    }

    fn part(mut self, part: Part) -> Self {
        self.build.push(part);
        self
    }

    fn resource(self, resource: &ResourceName) -> Self {
        self.context(Some(resource), None, None, None)
    }

    fn context(
        self,
        resource: Option<&ResourceName>,
        volume: Option<VolumeNumber>,
        peer_node_id: Option<NodeId>,
        addresses: Option<&AddressPair>,
    ) -> Self {
        self.part(Part::Context {
            resource: resource.cloned(),
            volume,
            peer_node_id,
            addresses: addresses.cloned(),
        })
    }

    pub(crate) fn dump(dialect: Dialect, command: u8) -> Self {
        let mut request = Self::new(dialect, command);
        request.flags |= NLM_F_DUMP;
        request
    }

    /// Asks to be refused if the object exists: 8.4 tells then; 9 ignores it.
    pub(crate) fn new_resource(
        dialect: Dialect,
        resource: &ResourceName,
        node_id: Option<NodeId>,
        options: &ResourceOptions,
    ) -> Self {
        let mut request = Self::new(dialect, cmd::NEW_RESOURCE).resource(resource);
        request.flags |= exclusive(dialect);
        let node_id = node_id.filter(|_| dialect == Dialect::V9);
        if node_id.is_some() || !options.is_empty() {
            request = request.part(Part::Resource {
                node_id,
                options: options.clone(),
            });
        }
        request
    }

    pub(crate) fn resource_options(
        dialect: Dialect,
        resource: &ResourceName,
        base: Base,
        options: &ResourceOptions,
    ) -> Self {
        Self::new(dialect, cmd::RESOURCE_OPTS)
            .resource(resource)
            .base(base)
            .part(Part::Resource {
                node_id: None,
                options: options.clone(),
            })
    }

    pub(crate) fn by_resource(dialect: Dialect, command: u8, resource: &ResourceName) -> Self {
        Self::new(dialect, command).resource(resource)
    }

    pub(crate) fn new_minor(
        dialect: Dialect,
        resource: &ResourceName,
        volume: VolumeNumber,
        minor: Minor,
        options: &DeviceOptions,
    ) -> Self {
        let mut request = Self::new(dialect, cmd::NEW_MINOR)
            .minor(minor)
            .context(Some(resource), Some(volume), None, None)
            .parameters(DeviceOptions::TLA, |nest| options.encode(dialect, nest));
        request.flags |= exclusive(dialect);
        request
    }

    /// Adds the parameters of a command.
    pub(crate) fn parameters(mut self, tla: u16, fill: impl FnOnce(&mut Nest<'_, E>)) -> Self {
        let mut payload = Vec::new();
        fill(&mut Nest::new(&mut payload, &mut self.overflow));
        if payload.is_empty() {
            self
        } else {
            self.part(Part::Parameters { tla, payload })
        }
    }

    /// Adds a nest with one flag, set.
    pub(crate) fn flag(self, tla: u16, number: u16) -> Self {
        self.part(Part::Flag { tla, number })
    }

    /// A command to 9's peer device.
    pub(crate) fn by_peer_device9(
        command: u8,
        resource: &ResourceName,
        peer: NodeId,
        volume: VolumeNumber,
    ) -> Self {
        Self::new(Dialect::V9, command).context(Some(resource), Some(volume), Some(peer), None)
    }

    pub(crate) fn by_minor(dialect: Dialect, command: u8, minor: Minor) -> Self {
        Self::new(dialect, command).minor(minor)
    }

    pub(crate) fn attach(
        dialect: Dialect,
        minor: Minor,
        backing: &Path,
        meta: &MetaDisk,
        options: &DiskOptions,
    ) -> Self {
        let (meta_dev, index) = meta_wire(meta, backing);
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        Self::by_minor(dialect, cmd::ATTACH, minor).part(Part::Disk {
            backing: Some((bytes(backing), bytes(meta_dev), index)),
            options: Box::new(options.clone()),
        })
    }

    pub(crate) fn disk_options(
        dialect: Dialect,
        minor: Minor,
        base: Base,
        options: &DiskOptions,
    ) -> Self {
        Self::by_minor(dialect, cmd::CHG_DISK_OPTS, minor)
            .base(base)
            .part(Part::Disk {
                backing: None,
                options: Box::new(options.clone()),
            })
    }

    /// 8.4's CONNECT.
    pub(crate) fn connect84(
        resource: &ResourceName,
        addresses: &AddressPair,
        wish: Wish,
        options: &NetOptions,
    ) -> Self {
        let flag = match wish {
            Wish::None => None,
            Wish::DiscardLocalData => Some(schema::net_conf::DISCARD_MY_DATA),
            Wish::Tentative => Some(schema::net_conf::TENTATIVE),
        };
        Self::new(Dialect::V84, cmd::CONNECT)
            .context(Some(resource), None, None, Some(addresses))
            .part(Part::Net {
                name: None,
                flag,
                options: Box::new(options.clone()),
            })
    }

    /// A command to 8.4's connection, which is named by its addresses alone.
    pub(crate) fn by_addresses84(command: u8, addresses: &AddressPair) -> Self {
        Self::new(Dialect::V84, command).context(None, None, None, Some(addresses))
    }

    pub(crate) fn net_options84(addresses: &AddressPair, base: Base, options: &NetOptions) -> Self {
        Self::by_addresses84(cmd::CHG_NET_OPTS, addresses)
            .base(base)
            .part(Part::Net {
                name: None,
                flag: None,
                options: Box::new(options.clone()),
            })
    }

    /// A command to 9's connection.
    pub(crate) fn by_peer9(command: u8, resource: &ResourceName, peer: NodeId) -> Self {
        Self::new(Dialect::V9, command).context(Some(resource), None, Some(peer), None)
    }

    pub(crate) fn connect9(resource: &ResourceName, peer: NodeId, wish: Wish) -> Self {
        let request = Self::by_peer9(cmd::CONNECT, resource, peer);
        let number = match wish {
            Wish::None => return request,
            Wish::DiscardLocalData => schema::connect_parms::DISCARD_MY_DATA,
            Wish::Tentative => schema::connect_parms::TENTATIVE,
        };
        request.flag(tla::CONNECT_PARMS, number)
    }

    pub(crate) fn new_peer9(
        resource: &ResourceName,
        peer: NodeId,
        name: &Text,
        options: &NetOptions,
    ) -> Self {
        Self::by_peer9(cmd::NEW_PEER, resource, peer).part(Part::Net {
            name: Some(name.clone()),
            flag: None,
            options: Box::new(options.clone()),
        })
    }

    pub(crate) fn net_options9(
        resource: &ResourceName,
        peer: NodeId,
        name: Option<Text>,
        base: Base,
        options: &NetOptions,
    ) -> Self {
        Self::by_peer9(cmd::CHG_NET_OPTS, resource, peer)
            .base(base)
            .part(Part::Net {
                name,
                flag: None,
                options: Box::new(options.clone()),
            })
    }

    pub(crate) fn path9(
        command: u8,
        resource: &ResourceName,
        peer: NodeId,
        addresses: &AddressPair,
    ) -> Self {
        Self::by_peer9(command, resource, peer).part(Part::Path(addresses.clone()))
    }

    pub(crate) fn peer_device_options9(
        resource: &ResourceName,
        peer: NodeId,
        volume: VolumeNumber,
        base: Base,
        options: &PeerDeviceOptions,
    ) -> Self {
        Self::new(Dialect::V9, cmd::CHG_PEER_DEVICE_OPTS)
            .context(Some(resource), Some(volume), Some(peer), None)
            .base(base)
            .part(Part::PeerDevice(options.clone()))
    }

    fn forced(self, force: bool) -> Self {
        if force {
            self.flag(tla::SET_ROLE_PARMS, schema::set_role_parms::FORCE)
        } else {
            self
        }
    }

    /// PRIMARY or SECONDARY, of a minor (8.4).
    pub(crate) fn role84(command: u8, minor: Minor, force: bool) -> Self {
        Self::by_minor(Dialect::V84, command, minor).forced(force)
    }

    /// PRIMARY or SECONDARY, of a resource (9).
    pub(crate) fn role9(command: u8, resource: &ResourceName, force: bool) -> Self {
        Self::by_resource(Dialect::V9, command, resource).forced(force)
    }

    /// The bytes.
    pub(crate) fn bytes(&self, family: u16, seq: u32, pid: u32) -> Result<Vec<u8>, WireError> {
        let mut builder =
            MessageBuilder::<E>::genl(family, self.flags, self.command, self.dialect.version())
                .drbd(self.minor, self.drbd_flags);
        let mut top = builder.attrs();
        for part in &self.build {
            part.encode(self.dialect, &mut top);
        }
        if self.overflow {
            let what = "request: a string that does not fit";
            return Err(WireError { what, at: 0 });
        }
        builder.finish(seq, pid)
    }
}

/// A wish that holds for one connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    None,
    DiscardLocalData,
    Tentative,
}

fn exclusive(dialect: Dialect) -> u16 {
    match dialect {
        Dialect::V84 => NLM_F_EXCL,
        Dialect::V9 => 0,
    }
}

impl Part {
    fn encode<E: Endian>(&self, dialect: Dialect, top: &mut Nest<'_, E>) {
        match self {
            Self::Context {
                resource,
                volume,
                peer_node_id,
                addresses,
            } => {
                top.nest(tla::CFG_CONTEXT, |nest| {
                    if let Some(resource) = resource {
                        nest.string(ctx::CTX_RESOURCE_NAME | MANDATORY, resource.as_bytes());
                    }
                    if let Some(id) = peer_node_id {
                        nest.u32(ctx::CTX_PEER_NODE_ID | MANDATORY, id.0);
                    }
                    if let Some(volume) = volume {
                        nest.u32(ctx::CTX_VOLUME | MANDATORY, volume.0);
                    }
                    if let Some(pair) = addresses {
                        nest.bytes(ctx::CTX_MY_ADDR | MANDATORY, &pair.local.to_wire(E::BIG));
                        nest.bytes(ctx::CTX_PEER_ADDR | MANDATORY, &pair.remote.to_wire(E::BIG));
                    }
                });
            }
            // An empty nest is left out, as drbdsetup does.
            Self::Disk {
                backing: None,
                options,
            } if options.is_empty() => {}
            Self::Resource {
                node_id: None,
                options,
            } if options.is_empty() => {}
            Self::Net {
                name: None,
                flag: None,
                options,
            } if options.is_empty() => {}
            Self::PeerDevice(options) if options.is_empty() => {}
            Self::Disk { backing, options } => {
                top.nest(DiskOptions::TLA, |nest| {
                    if let Some((disk, meta, index)) = backing {
                        nest.string(disk_conf::BACKING_DEV | MANDATORY, disk);
                        nest.string(disk_conf::META_DEV | MANDATORY, meta);
                        nest.i32(disk_conf::META_DEV_IDX | MANDATORY, *index);
                    }
                    options.encode(dialect, nest);
                });
            }
            Self::Resource { node_id, options } => {
                top.nest(ResourceOptions::TLA, |nest| {
                    if let Some(id) = node_id {
                        nest.u32(schema::res_opts::NODE_ID | MANDATORY, id.0);
                    }
                    options.encode(dialect, nest);
                });
            }
            Self::Net {
                name,
                flag,
                options,
            } => {
                top.nest(NetOptions::TLA, |nest| {
                    if let Some(name) = name {
                        nest.string(schema::net_conf::NAME | MANDATORY, name.as_bytes());
                    }
                    if let Some(flag) = flag {
                        nest.u8(flag | MANDATORY, 1);
                    }
                    options.encode(dialect, nest);
                });
            }
            Self::PeerDevice(options) => {
                top.nest(PeerDeviceOptions::TLA, |nest| options.encode(dialect, nest));
            }
            Self::Parameters { tla, payload } => {
                top.bytes(tla | NLA_F_NESTED, payload);
            }
            Self::Path(pair) => {
                top.nest(tla::PATH_PARMS, |nest| {
                    nest.bytes(
                        schema::path_parms::MY_ADDR | MANDATORY,
                        &pair.local.to_wire(E::BIG),
                    );
                    nest.bytes(
                        schema::path_parms::PEER_ADDR | MANDATORY,
                        &pair.remote.to_wire(E::BIG),
                    );
                });
            }
            Self::Flag { tla, number } => {
                top.nest(*tla, |nest| {
                    nest.u8(*number | MANDATORY, 1);
                });
            }
        }
    }
}
