//! What `drbdadm` verbs do to a resource that is up, as operations.

use drbd_nl::{
    ConnectionRef, Dialect, InvalidateOptions, InvalidatePeerOptions, Minor, NewUuidOptions,
    Operation, PeerDeviceRef, ResizeOptions, SuspendIoOptions, VerifyOptions, VolumeNumber,
};

use crate::error::{Error, ErrorKind, Result};
use crate::expand::Step;
use crate::view::{NodeView, PeerView, VolumeView};

impl NodeView {
    /// Returns the step that makes this node primary (`drbdadm primary`).
    ///
    /// What `--force` does is three operations, see [`Operation`]; none of them follows from a
    /// configuration.
    ///
    /// # Errors
    /// `Invalid` if the driver does not take the name of the resource; so for all below.
    pub fn primary(&self) -> Result<Vec<Step>> {
        let resource = self.name()?;
        Ok(vec![Operation::Primary { resource }.into()])
    }

    /// Returns the step that makes this node secondary (`drbdadm secondary`).
    ///
    /// # Errors
    /// As [`NodeView::primary`].
    pub fn secondary(&self) -> Result<Vec<Step>> {
        let resource = self.name()?;
        Ok(vec![Operation::Secondary { resource }.into()])
    }

    /// Returns the steps that connect again what is there and stands alone (`drbdadm connect`
    /// of DRBD 9). In 8.4 a connection that stands alone is gone: there it is
    /// [`NodeView::connect`].
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn reconnect(&self, dialect: Dialect) -> Result<Vec<Step>> {
        if dialect == Dialect::V84 {
            return self.connect(dialect);
        }
        let connect = |peer: &PeerView| {
            let id = self.need_node_id(peer.node_id, &peer.name)?;
            Ok(Operation::Connect {
                connection: ConnectionRef::only(self.name()?).peer_node_id(id),
                name: None,
                options: Box::default(),
            }
            .into())
        };
        self.peers.iter().map(connect).collect()
    }

    /// Returns the steps that declare the data of every volume inconsistent, so that all of it is
    /// fetched from a peer (`drbdadm invalidate`).
    pub fn invalidate(&self) -> Vec<Step> {
        let options = InvalidateOptions::default;
        self.each(|minor| Operation::Invalidate {
            minor,
            options: options(),
        })
    }

    /// Returns the steps that mark the data of every volume as outdated (`drbdadm outdate`).
    pub fn outdate(&self) -> Vec<Step> {
        self.each(|minor| Operation::Outdate { minor })
    }

    /// Returns the steps that freeze I/O on every volume (`drbdadm suspend-io`).
    pub fn suspend_io(&self) -> Vec<Step> {
        let all = self.volumes.iter().map(|v| Operation::SuspendIo {
            minor: Minor(v.minor),
            options: SuspendIoOptions::default(),
        });
        all.map(Step::from).collect()
    }

    /// Returns the steps that let I/O go on (`drbdadm resume-io`).
    pub fn resume_io(&self) -> Vec<Step> {
        let all = self.volumes.iter().map(|v| Operation::ResumeIo {
            minor: Minor(v.minor),
        });
        all.map(Step::from).collect()
    }

    /// Returns the steps that take new sizes of the disks into use (`drbdadm resize`).
    ///
    /// # Errors
    /// `Unsupported` if the configured size is not one the driver takes.
    pub fn resize(&self, dialect: Dialect) -> Result<Vec<Step>> {
        let resize = |v: &VolumeView| {
            let mut options = ResizeOptions::default();
            options.size = self.disk_options(v, dialect)?.size;
            let minor = Minor(v.minor);
            Ok(Operation::Resize { minor, options }.into())
        };
        self.with_disk().map(resize).collect()
    }

    /// Returns the step that starts a new generation of one volume (`drbdadm new-current-uuid`),
    /// with `clear_bitmap` on day 0 to skip the first synchronisation.
    ///
    /// # Errors
    /// `Invalid` if this node has no such volume.
    pub fn new_current_uuid(&self, volume: u32, clear_bitmap: bool) -> Result<Vec<Step>> {
        let Some(v) = self.volume(volume) else {
            let text = format!("resource {} has no volume {volume}", self.resource);
            let code = "unknown-volume";
            return Err(Error::plain(ErrorKind::Invalid, code, text, None));
        };
        let mut options = NewUuidOptions::default();
        options.clear_bitmap = clear_bitmap.then_some(true);
        let minor = Minor(v.minor);
        Ok(vec![Operation::NewCurrentUuid { minor, options }.into()])
    }

    /// Returns the steps that compare every volume with every peer (`drbdadm verify`).
    ///
    /// # Errors
    /// As [`NodeView::up`]; so for all below.
    pub fn verify(&self, dialect: Dialect) -> Result<Vec<Step>> {
        self.each_peer(dialect, |peer_device| Operation::Verify {
            peer_device,
            options: VerifyOptions::default(),
        })
    }

    /// Returns the steps that declare the data of the peers inconsistent (`drbdadm
    /// invalidate-remote`).
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn invalidate_remote(&self, dialect: Dialect) -> Result<Vec<Step>> {
        self.each_peer(dialect, |peer_device| Operation::InvalidatePeer {
            peer_device,
            options: InvalidatePeerOptions::default(),
        })
    }

    /// Returns the steps that pause synchronisation (`drbdadm pause-sync`).
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn pause_sync(&self, dialect: Dialect) -> Result<Vec<Step>> {
        self.each_peer(dialect, |peer_device| Operation::PauseSync { peer_device })
    }

    /// Returns the steps that let synchronisation go on (`drbdadm resume-sync`).
    ///
    /// # Errors
    /// As [`NodeView::up`].
    pub fn resume_sync(&self, dialect: Dialect) -> Result<Vec<Step>> {
        self.each_peer(dialect, |peer_device| Operation::ResumeSync { peer_device })
    }

    /// Returns the step that frees a peer's place in the metadata (`drbdadm forget-peer`; 9).
    ///
    /// # Errors
    /// `Unsupported` if the peer has no node id.
    pub fn forget_peer(&self, peer: &PeerView) -> Result<Vec<Step>> {
        let resource = self.name()?;
        let peer_node_id = self.need_node_id(peer.node_id, &peer.name)?;
        let forget = Operation::ForgetPeer {
            resource,
            peer_node_id,
        };
        Ok(vec![forget.into()])
    }

    fn with_disk(&self) -> impl Iterator<Item = &VolumeView> {
        self.volumes.iter().filter(|v| v.disk.is_some())
    }

    fn each(&self, operation: impl Fn(Minor) -> Operation) -> Vec<Step> {
        let step = |v: &VolumeView| operation(Minor(v.minor)).into();
        self.with_disk().map(step).collect()
    }

    /// For each volume, with a disk here or not, each peer in turn.
    fn each_peer(
        &self,
        dialect: Dialect,
        operation: impl Fn(PeerDeviceRef) -> Operation,
    ) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for v in &self.volumes {
            for peer in &self.peers {
                let mut of = PeerDeviceRef::only(self.name()?, VolumeNumber(v.number));
                if dialect == Dialect::V9 {
                    of.peer_node_id = Some(self.need_node_id(peer.node_id, &peer.name)?);
                }
                steps.push(operation(of).into());
            }
        }
        Ok(steps)
    }
}
