// One worker's packs: frames in, packs in the repository out.
//
//   none --append--> open --full or finish--> stored     the pack is visible only now
//                      └──failure, freed──> gone
//
// Invariants:
// 1. A pack has one owner and is written front to back, so its frames' numbers are unique under its seal.
// 2. A place that `append` returned may be referred to only after `finish`: before that the pack does not exist.

package import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Where packs are made.
package protocol PackStore: Sendable {
    /// Begins a pack with a new id.
    func beginPack() throws(KedgeError) -> NewPack

    /// Is told of each pack that is stored, with its length in bytes.
    func stored(_ pack: RandomID, bytes: UInt64)
}

extension PackStore {
    package func stored(_ pack: RandomID, bytes: UInt64) {}
}

/// A pack that is begun and empty.
package struct NewPack {
    package let id: RandomID
    package let seal: ObjectSeal
    package let upload: any ObjectUpload

    package init(id: RandomID, seal: ObjectSeal, upload: any ObjectUpload) {
        self.id = id
        self.seal = seal
        self.upload = upload
    }
}

/// When a pack is full.
package struct PackLimits: Sendable {
    /// Bytes as stored; a pack may be larger by one frame and its table.
    package var storedBytes: UInt64
    /// Bytes of the table, which is kept in memory until the pack is closed.
    package var tableBytes: Int

    package init(storedBytes: UInt64, tableBytes: Int) {
        self.storedBytes = storedBytes
        self.tableBytes = tableBytes
    }

    package static let standard = PackLimits(storedBytes: 256 << 20, tableBytes: 2 << 20)
}

/// Where a frame went.
package struct FramePlace: Hashable, Sendable {
    package let pack: RandomID
    package let frame: UInt32
}

/// Writes frames into packs, one pack after the other. Used by one thread at a time.
package final class PackWriter {
    /// A class, so that its table is changed in place.
    private final class OpenPack {
        let new: NewPack
        var tally: ObjectTally
        var table = PackTableBuilder()

        init(_ new: NewPack) {
            self.new = new
            tally = ObjectTally(new.seal)
        }
    }

    private let store: any PackStore
    private let limits: PackLimits
    private var pack: OpenPack?
    /// Keeps its codec and cipher from pack to pack.
    private var sealer: FrameSealer?
    private var output = FrameBuffer()
    /// Bytes of all packs that are stored.
    package private(set) var storedBytes: UInt64 = 0
    /// Raw bytes of all frames.
    package private(set) var rawBytes: UInt64 = 0

    package init(_ store: any PackStore, limits: PackLimits = .standard) {
        self.store = store
        self.limits = limits
    }

    deinit { pack?.new.upload.abort() }

    /// Stores `raw` (1 byte to 1 MiB) as one frame. `sources` tile it in order; none for a manifest part. With
    /// `mayClose` false it goes into the pack that is open, even if that is full.
    package func append(
        _ raw: UnsafeRawBufferPointer, sources: [PackSource], mayClose: Bool = true
    ) throws(KedgeError) -> FramePlace {
        if mayClose, let pack,
            pack.tally.length >= limits.storedBytes || pack.table.byteCount >= limits.tableBytes
        {
            try finish()
        }
        let (open, sealer) = try openPack()
        let place = FramePlace(pack: open.new.id, frame: open.tally.frames)
        try sealer.append(.data, raw: raw, counting: &open.tally, to: &output)
        open.table.append(
            storedLength: output.count - FrameHeader.overhead, rawLength: raw.count, sources: sources)
        try flush(to: open.new.upload)
        rawBytes += UInt64(raw.count)
        return place
    }

    /// Stores the pack that is open, if there is one.
    package func finish() throws(KedgeError) {
        guard let open = pack, let sealer else { return }
        try open.table.encoded().withBytes { raw throws(KedgeError) in
            try sealer.appendPieces(.table, raw: raw, counting: &open.tally, to: &output)
        }
        try sealer.appendEnd(open.tally, to: &output)
        try flush(to: open.new.upload)
        guard try open.new.upload.finish() == .created else {
            throw KedgeError(
                .defect, "could not store pack \"\(open.new.id)\": the repository holds one of this name",
                detail: "Pack ids are random and are used once.", hint: "Please report this.")
        }
        let length = open.tally.endFrame.objectLength
        storedBytes += length
        store.stored(open.new.id, bytes: length)
        pack = nil
    }

    private func openPack() throws(KedgeError) -> (OpenPack, FrameSealer) {
        if let pack, let sealer { return (pack, sealer) }
        let open = OpenPack(try store.beginPack())
        // From here on the upload is ours to abort.
        pack = open
        let new = open.new
        let sealer: FrameSealer
        if let used = self.sealer {
            try used.start(new.seal)
            sealer = used
        } else {
            sealer = try FrameSealer(new.seal)
            self.sealer = sealer
        }
        try new.seal.headerBytes.withBytes { bytes throws(KedgeError) in try new.upload.append(bytes) }
        return (open, sealer)
    }

    private func flush(to upload: any ObjectUpload) throws(KedgeError) {
        try upload.append(output.bytes)
        output.removeAll()
    }
}
