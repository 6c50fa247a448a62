// Whole objects at once, for what is small enough to be held in memory: records, manifest roots, WAL files.
package import KedgeCore

/// Sealing and opening whole objects.
package enum SealedObject {
    /// The most raw bytes that `open` accepts unless told otherwise: the largest WAL segment.
    package static let standardLimit = 1 << 30
    /// How many bytes of a WAL object usually hold the whole facts frame.
    package static let factsPrefix = 4096

    /// What an object held.
    package struct Contents: Sendable, Equatable {
        /// The raw bytes of the facts frame; nil but for WAL files.
        package var facts: [UInt8]?
        /// The raw bytes of all data frames.
        package var data: [UInt8]
    }

    /// A whole object that holds `contents`, and for a WAL file `facts` (at most one frame).
    ///
    /// Throws `key-missing`, `defect`.
    package static func seal(
        _ kind: ObjectKind, name: ScopedName, contents: [UInt8], facts: [UInt8]? = nil,
        compression: CompressionChoice = .standard, frameSize: Int = ObjectSeal.standardFrameSize, keyRing: KeyRing,
        random: any RandomSource, writer: String = Version.writer
    ) throws(KedgeError) -> [UInt8] {
        let seal = try ObjectSeal(
            writing: kind, name: name, compression: compression, frameSize: frameSize, keyRing: keyRing,
            random: random, writer: writer)
        return try self.seal(contents, facts: facts, with: seal)
    }

    /// The same with a seal that was made before, and that nothing was sealed with.
    package static func seal(
        _ contents: [UInt8], facts: [UInt8]? = nil, with seal: ObjectSeal
    ) throws(KedgeError) -> [UInt8] {
        precondition((facts != nil) == (seal.kind == .walFile) && seal.kind != .pack)
        let sealer = try FrameSealer(seal)
        var tally = ObjectTally(seal)
        var buffer = FrameBuffer(capacity: seal.headerLength + sealer.bound(min(contents.count, seal.frameSize)) + 4096)
        buffer.append(seal.headerBytes)
        if let facts {
            guard facts.count <= seal.frameSize else {
                throw KedgeError(
                    .defect, "cannot seal \(seal.what)", detail: "Its facts have \(facts.count) bytes, too many.")
            }
            try facts.withBytes { facts throws(KedgeError) in
                try sealer.append(.facts, raw: facts, counting: &tally, to: &buffer)
            }
        }
        try contents.withBytes { contents throws(KedgeError) in
            try sealer.appendPieces(.data, raw: contents, counting: &tally, to: &buffer)
        }
        try sealer.appendEnd(tally, to: &buffer)
        return Array(buffer.bytes)
    }

    /// Opens a whole object that holds at most `limit` raw bytes, and checks every byte of it.
    ///
    /// Throws what `ObjectSeal(reading:…)` throws, and `damaged`.
    package static func open(
        _ bytes: [UInt8], kind: ObjectKind, name: ScopedName, keyRing: KeyRing, limit: Int = standardLimit
    ) throws(KedgeError) -> Contents {
        try bytes.withBytes { bytes throws(KedgeError) in
            let index = try ObjectIndex(bytes, kind: kind, name: name, keyRing: keyRing, limit: limit)
            let opener = try FrameOpener(index.seal)
            var data = [UInt8](repeating: 0, count: index.rawCount)
            try data.withMutableBytes { data throws(KedgeError) in
                for place in index.dataFrames { try index.open(place, of: bytes, with: opener, into: data) }
            }
            return Contents(facts: try index.openFacts(of: bytes, with: opener), data: data)
        }
    }

    /// What the first bytes of a WAL object yield.
    package enum FactsResult: Sendable, Equatable {
        case facts([UInt8])
        /// So many of the object's first bytes are needed. Where it has fewer, it is damaged.
        case needs(Int)
    }

    /// The facts of a WAL file from the first bytes of its object. Says nothing about the rest of the object.
    ///
    /// Throws what `ObjectSeal(reading:…)` throws, and `damaged`.
    package static func openFacts(
        prefix: [UInt8], name: ScopedName, keyRing: KeyRing
    ) throws(KedgeError) -> FactsResult {
        try prefix.withBytes { prefix throws(KedgeError) in
            let what = ObjectSeal.what(.walFile, name)
            guard let headerLength = try ObjectHeader.length(of: prefix, what: what) else {
                return .needs(factsPrefix)
            }
            guard prefix.count >= headerLength + FrameHeader.headerBytes else {
                return .needs(headerLength + factsPrefix)
            }
            let seal = try ObjectSeal(reading: prefix, kind: .walFile, name: name, keyRing: keyRing)
            let rest = UnsafeRawBufferPointer(rebasing: prefix[headerLength...])
            let header = try FrameHeader(parsing: rest, seal: seal)
            guard rest.count >= header.frameLength else { return .needs(headerLength + header.frameLength) }
            let frame = UnsafeRawBufferPointer(rebasing: rest[..<header.frameLength])
            return .facts(try FrameOpener(seal).open(frame, expecting: .facts, number: 0))
        }
    }

    /// The facts of a WAL file, reading no more of its object than needed: usually the first 4 KiB.
    ///
    /// `read` returns a range of the object, or less where the object ends before. Throws what it throws and what
    /// `openFacts(prefix:)` throws.
    package static func readFacts(
        name: ScopedName, keyRing: KeyRing, read: (Range<UInt64>) throws(KedgeError) -> [UInt8]
    ) throws(KedgeError) -> [UInt8] {
        var wanted = factsPrefix
        while true {
            let prefix = try read(0..<UInt64(wanted))
            switch try openFacts(prefix: prefix, name: name, keyRing: keyRing) {
            case .facts(let facts): return facts
            case .needs(let count):
                guard prefix.count == wanted, count > wanted else {
                    throw KedgeError(
                        .damaged, "cannot read \(ObjectSeal.what(.walFile, name))",
                        detail: "It ends after \(prefix.count) bytes, before its facts do.")
                }
                wanted = count
            }
        }
    }
}
