// `global/pg_control`: what a cluster says about itself (src/include/catalog/pg_control.h).
//
// The layouts of 13 to 18 differ by a field or two and all end in a CRC32C, which is checked before anything is
// believed. The server rewrites the file in place, so that a reader may see a mixture of old and new: such a torn copy
// fails its CRC and has to be read again, everywhere it is read (lesson 36).
package import KedgeCore

/// The parts of `pg_control` that matter to backup and restore.
package struct ControlFile: Hashable, Sendable {
    /// What the cluster was doing when the file was written (DBState).
    package enum State: UInt32, Sendable {
        case startup = 0
        case shutDown = 1
        case shutDownInRecovery = 2
        case shuttingDown = 3
        case inCrashRecovery = 4
        case inArchiveRecovery = 5
        case inProduction = 6
    }

    /// The settings that a hot standby must have at least as high as its primary, and `track_commit_timestamp`.
    package struct StandbySettings: Hashable, Sendable {
        package let maxConnections: Int32
        package let maxWorkerProcesses: Int32
        package let maxWALSenders: Int32
        package let maxPreparedTransactions: Int32
        package let maxLocksPerTransaction: Int32
        package let trackCommitTimestamp: Bool

        package init(
            maxConnections: Int32, maxWorkerProcesses: Int32, maxWALSenders: Int32, maxPreparedTransactions: Int32,
            maxLocksPerTransaction: Int32, trackCommitTimestamp: Bool
        ) {
            self.maxConnections = maxConnections
            self.maxWorkerProcesses = maxWorkerProcesses
            self.maxWALSenders = maxWALSenders
            self.maxPreparedTransactions = maxPreparedTransactions
            self.maxLocksPerTransaction = maxLocksPerTransaction
            self.trackCommitTimestamp = trackCommitTimestamp
        }
    }

    package let systemIdentifier: SystemIdentifier
    package let version: PostgresVersion
    package let state: State
    /// Where the latest checkpoint record begins.
    package let checkpoint: LSN
    /// Where recovery from that checkpoint begins to replay.
    package let redo: LSN
    package let timeline: TimelineID
    package let previousTimeline: TimelineID
    package let checkpointTime: Timestamp
    /// How far recovery must get before the cluster is consistent; `.invalid` outside archive recovery.
    package let minimumRecoveryPoint: LSN
    package let minimumRecoveryTimeline: TimelineID
    package let backupStartPoint: LSN
    package let backupEndPoint: LSN
    package let backupEndRequired: Bool
    package let walLevel: WALLevel
    package let standbySettings: StandbySettings
    package let maximumAlignment: UInt32
    /// Bytes of a data page.
    package let blockSize: UInt32
    /// Pages of a relation segment file: 131072 for 1 GiB files.
    package let relationSegmentBlocks: UInt32
    /// Bytes of a WAL page.
    package let walBlockSize: UInt32
    /// Bytes of a WAL segment.
    package let walSegmentSize: UInt32
    /// 0 where the cluster has no data checksums.
    package let dataChecksumVersion: UInt32
    /// Whether `char` is signed where the cluster was made. Nil before 18.
    package let charIsSigned: Bool?

    package var hasDataChecksums: Bool { dataChecksumVersion != 0 }
}

/// `wal_level`, in the order of its values in WAL and in `pg_control`.
package enum WALLevel: UInt32, Sendable {
    case minimal = 0
    case replica = 1
    case logical = 2
}

// MARK: - Reading

extension ControlFile {
    /// The size of the file: fixed, much larger than what is used of it.
    package static let fileSize = 8192

    /// Where the fields lie. All versions agree up to data_checksum_version; after it, 18 inserted a Boolean, which
    /// moves the nonce by one byte and the CRC by the alignment of a word.
    private enum Offset {
        static let checkpoint = 32
        static let charSignedness = 256
        static func crc(controlVersion: UInt32) -> Int { controlVersion >= 1800 ? 292 : 288 }
    }

    /// Parses the bytes of the file.
    ///
    /// Throws `damaged` where the CRC does not fit (a torn read looks the same: see `read`) or a value is out of range,
    /// `notSupported` for a cluster of another version than 13 to 18 or of another byte order. `bytes` may be longer
    /// than the data.
    package init(parsing bytes: UnsafeRawBufferPointer) throws(KedgeError) {
        let crcOffset = try ControlFile.checkCRC(bytes)
        let fields = Fields(bytes: UnsafeRawBufferPointer(rebasing: bytes[..<crcOffset]))
        systemIdentifier = SystemIdentifier(fields.u64(0))
        version = try fields.version()
        guard let state = State(rawValue: fields.u32(16)) else {
            throw fields.impossible("state", fields.u32(16))
        }
        self.state = state
        checkpoint = LSN(fields.u64(Offset.checkpoint))
        redo = LSN(fields.u64(40))
        timeline = try fields.timeline(48, "ThisTimeLineID")
        previousTimeline = try fields.timeline(52, "PrevTimeLineID")
        checkpointTime = try fields.time(104, "checkpoint time")
        minimumRecoveryPoint = LSN(fields.u64(136))
        minimumRecoveryTimeline = TimelineID(fields.u32(144))
        backupStartPoint = LSN(fields.u64(152))
        backupEndPoint = LSN(fields.u64(160))
        backupEndRequired = fields.flag(168)
        guard let walLevel = WALLevel(rawValue: fields.u32(172)) else {
            throw fields.impossible("wal_level", fields.u32(172))
        }
        self.walLevel = walLevel
        standbySettings = StandbySettings(
            maxConnections: fields.i32(180), maxWorkerProcesses: fields.i32(184), maxWALSenders: fields.i32(188),
            maxPreparedTransactions: fields.i32(192), maxLocksPerTransaction: fields.i32(196),
            trackCommitTimestamp: fields.flag(200))
        maximumAlignment = fields.u32(204)
        blockSize = try fields.powerOfTwo(216, "blcksz", 1 << 10...1 << 15)
        relationSegmentBlocks = try fields.positive(220, "relseg_size")
        walBlockSize = try fields.powerOfTwo(224, "xlog_blcksz", 1 << 10...1 << 16)
        walSegmentSize = try fields.powerOfTwo(228, "xlog_seg_size", 1 << 20...1 << 30)
        dataChecksumVersion = fields.u32(252)
        charIsSigned = version >= .v18 ? fields.flag(Offset.charSignedness) : nil
    }

    /// The same for an array.
    package init(parsing bytes: [UInt8]) throws(KedgeError) {
        self = try bytes.withBytes { (buffer) throws(KedgeError) in try ControlFile(parsing: buffer) }
    }

    /// Reads `global/pg_control` below `dataDirectory`, again if it is torn.
    package static func read(dataDirectory: RawPath, time: any TimeSource) throws(KedgeError) -> ControlFile {
        try ControlFile(parsing: try readBytes(dataDirectory: dataDirectory, time: time))
    }

    /// The bytes of `global/pg_control` below `dataDirectory`, as one that parses: what a backup stores.
    package static func readBytes(dataDirectory: RawPath, time: any TimeSource) throws(KedgeError) -> [UInt8] {
        let path = dataDirectory.appending("global/pg_control")
        return try untorn(pause: { time.sleep(nanoseconds: 10_000_000) }) { () throws(KedgeError) in
            try FileDescriptor.open(path, .read).readAll(limit: fileSize)
        }
    }

    /// Calls `read` until what it returns parses, at most `attempts` times, and `pause` between two of them.
    ///
    /// The server needs microseconds to rewrite the file, so a pause of 10 ms is plenty. Throws the last attempt's
    /// error, and at once any that is not about damage.
    package static func untorn(
        attempts: Int = 10, pause: () -> Void, _ read: () throws(KedgeError) -> [UInt8]
    ) throws(KedgeError) -> [UInt8] {
        for attempt in 1... {
            let bytes = try read()
            do throws(KedgeError) {
                _ = try ControlFile(parsing: bytes)
                return bytes
            } catch  where error.code == .damaged && attempt < attempts {
                pause()
            }
        }
        preconditionFailure("the loop ends by returning or throwing")
    }

    /// The offset of the CRC in these bytes, once it was found to fit what stands before it.
    private static func checkCRC(_ bytes: UnsafeRawBufferPointer) throws(KedgeError) -> Int {
        guard bytes.count >= 16 else { throw damaged("It has only \(bytes.count) bytes.") }
        let controlVersion = Fields(bytes: bytes).u32(8)
        guard PostgresVersion.allCases.contains(where: { $0.controlVersion == controlVersion }) else {
            if controlVersion == 0 { throw damaged("Its format number is 0.") }
            // pg_controldata has the same guess: a version whose two low bytes are zero was written in the other order.
            if controlVersion & 0xFFFF == 0 {
                throw KedgeError(
                    .notSupported, "cannot read control file \"pg_control\"",
                    detail: "It was written on a machine of the other byte order.",
                    hint: "Run kedge on the machine that the cluster belongs to.")
            }
            throw KedgeError(
                .notSupported, "cannot read control file \"pg_control\"",
                detail: "Its format is \(controlVersion); kedge knows 1300 (PostgreSQL 13 to 16), 1700 and 1800.",
                hint: "Check that pgdata names the data directory of a PostgreSQL 13 to 18.")
        }
        let crcOffset = Offset.crc(controlVersion: controlVersion)
        guard bytes.count >= crcOffset + 4 else { throw damaged("It has only \(bytes.count) bytes.") }
        let stored = Fields(bytes: bytes).u32(crcOffset)
        let computed = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[..<crcOffset]))
        guard stored == computed else {
            throw damaged("Its checksum is \(hexWord(stored)), but its content gives \(hexWord(computed)).")
        }
        return crcOffset
    }

    private static func damaged(_ detail: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot read control file \"pg_control\"", detail: detail,
            hint: "If the server runs, try again; if it never succeeds, compare with pg_controldata.")
    }

    private static func hexWord(_ number: UInt32) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 8 - digits.utf8.count) + digits
    }

    /// The fields of a control file by offset. The caller has checked that the bytes are long enough.
    private struct Fields {
        let bytes: UnsafeRawBufferPointer

        func u32(_ offset: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        }

        func i32(_ offset: Int) -> Int32 { Int32(bitPattern: u32(offset)) }

        func u64(_ offset: Int) -> UInt64 {
            UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }

        func flag(_ offset: Int) -> Bool { bytes[offset] != 0 }

        func version() throws(KedgeError) -> PostgresVersion {
            guard let version = PostgresVersion(catalogVersion: u32(12)), version.controlVersion == u32(8) else {
                throw KedgeError(
                    .notSupported, "cannot read control file \"pg_control\"",
                    detail: "Its catalogue version \(u32(12)) with format \(u32(8)) is of no released PostgreSQL that "
                        + "kedge knows.",
                    hint: "Use a released PostgreSQL 13 to 18, or a newer kedge.")
            }
            return version
        }

        func timeline(_ offset: Int, _ name: String) throws(KedgeError) -> TimelineID {
            TimelineID(try positive(offset, name))
        }

        func positive(_ offset: Int, _ name: String) throws(KedgeError) -> UInt32 {
            let value = u32(offset)
            guard value > 0 else { throw impossible(name, value) }
            return value
        }

        func powerOfTwo(_ offset: Int, _ name: String, _ range: ClosedRange<UInt32>) throws(KedgeError) -> UInt32 {
            let value = u32(offset)
            guard range.contains(value), value & (value - 1) == 0 else { throw impossible(name, value) }
            return value
        }

        func time(_ offset: Int, _ name: String) throws(KedgeError) -> Timestamp {
            let seconds = Int64(bitPattern: u64(offset))
            guard Timestamp.believableSeconds.contains(seconds) else { throw impossible(name, seconds) }
            return Timestamp(secondsSince1970: seconds)
        }

        func impossible(_ name: String, _ value: some BinaryInteger) -> KedgeError {
            damaged("Its field \(name) has the value \(value), which cannot be right.")
        }
    }
}

// MARK: - Poison

extension ControlFile {
    /// The checkpoint location of a restored `pg_control`: no WAL ever has a record there.
    ///
    /// It lies in the first segment of the log, which initdb never uses, whatever the segment size; its place in the
    /// page is one that passes the server's check at start (XRecOffIsValid), since with a `backup_label` the server
    /// must start.
    package static let poisonedCheckpoint = LSN(0x000D_EAD0)

    /// Whether the file came from a restore that has not been recovered yet.
    package var isPoisoned: Bool { checkpoint == ControlFile.poisonedCheckpoint }

    /// The file's bytes with `poisonedCheckpoint` for the checkpoint location and the CRC to match (lesson 37).
    ///
    /// With `backup_label` in place, recovery takes the location from there and the server starts as ever; once
    /// somebody has deleted `backup_label`, the server finds no checkpoint record and refuses, where it would otherwise
    /// start on a corrupt copy. Throws as `init(parsing:)` does.
    package static func poisoned(_ bytes: [UInt8]) throws(KedgeError) -> [UInt8] {
        let file = try ControlFile(parsing: bytes)
        let crcOffset = Offset.crc(controlVersion: file.version.controlVersion)
        var result = bytes
        result.replace(at: Offset.checkpoint, with: poisonedCheckpoint.position)
        result.replace(at: crcOffset, with: CRC32C.checksum(Array(result[..<crcOffset])))
        return result
    }
}

extension Array<UInt8> {
    /// Writes `number` little-endian over the bytes at `offset`.
    fileprivate mutating func replace(at offset: Int, with number: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: number.littleEndian) { source in
            replaceSubrange(offset..<offset + source.count, with: source)
        }
    }
}
