// The archived WAL of one database system in one repository: what is there, its facts, its bytes.

import KedgeCodec
package import KedgeCore
package import KedgePostgres
package import KedgeRepository

/// One archived WAL file.
package struct ArchivedFile: Hashable, Sendable {
    package let file: WALFileName
    /// Relative to the cluster.
    package let name: ObjectName
    /// The content tag in the name; nil where the name has none.
    package let tag: ContentHash?

    package init(file: WALFileName, name: ObjectName, tag: ContentHash?) {
        self.file = file
        self.name = name
        self.tag = tag
    }
}

/// The archived WAL of one database system.
package struct WALArchive: Sendable {
    package let cluster: ClusterRepository
    package let registration: Registration

    package init(_ cluster: ClusterRepository, _ registration: Registration) {
        self.cluster = cluster
        self.registration = registration
    }

    private var system: SystemIdentifier { registration.systemIdentifier }
    private var store: any ObjectStore { cluster.repository.store }

    // MARK: - What is there

    /// The archived file that an object stands for, if it lies exactly where that file belongs. Nil for a stranger.
    func archived(_ name: ObjectName) -> ArchivedFile? {
        guard let (file, tag) = ClusterLayout.parseWALFile(name.lastComponent),
            ClusterLayout.walFile(file, of: system, tag: tag) == name
        else { return nil }
        return ArchivedFile(file: file, name: name, tag: tag)
    }

    /// Reads the names of everything that is archived, and of a segment with several what they hold.
    package func inventory() throws(KedgeError) -> WALInventory {
        var inventory = WALInventory(segmentSize: registration.walSegmentSize)
        try cluster.forEachObject(below: ClusterLayout.walDirectory(system)) { (name, status) throws(KedgeError) in
            if archived(name) == nil {
                inventory.add(strangerNamed: String(name.lastComponent))
            } else {
                inventory.add(objectNamed: name.lastComponent, storedBytes: status.sizeBytes)
            }
        }
        try settleConflicts(of: &inventory)
        return inventory
    }

    /// The objects that hold this WAL file, one of each content: none, one, or several that conflict with each other.
    /// An object whose content nobody can tell is not taken for a copy of another.
    package func find(_ file: WALFileName) throws(KedgeError) -> [ArchivedFile] {
        let contents = try contents(of: file)
        let unreadable = [contents.unreadable?.object].compactMap(\.self)
        return (unreadable + contents.known.compactMap(\.objects.first)).map(\.archived)
    }

    /// All objects of this WAL file in their own places, in the order of their names.
    func lookUp(_ file: WALFileName) throws(KedgeError) -> [StoredFile] {
        let found = try listed(file)
        if !found.isEmpty { return found }
        // Absent is what the store says of the name itself.
        let untagged = ClusterLayout.walFile(file, of: system, tag: nil)
        guard let status = try store.status(of: cluster.name(untagged)) else { return [] }
        return [(ArchivedFile(file: file, name: untagged, tag: nil), status.sizeBytes)]
    }

    /// The objects of a segment or partial segment, with and without a tag, as a listing shows them: what was copied
    /// here from a store without conditional put carries one. None of other files, whose names never do.
    private func listed(_ file: WALFileName) throws(KedgeError) -> [StoredFile] {
        switch file {
        case .history, .backup: return []
        case .segment, .partial: break
        }
        var found: [StoredFile] = []
        let directory = cluster.name(ClusterLayout.logDirectory(of: file, system))
        let position = cluster.name(ClusterLayout.position(before: file, of: system))
        try store.visitObjects(below: directory, after: position, pageSize: 4) { (entry) throws(KedgeError) in
            // Only what lies directly in a directory is in order.
            guard entry.name.parent == directory else { return true }
            let last = entry.name.lastComponent
            if let parsed = ClusterLayout.parseWALFile(last), parsed.file == file {
                let name = ClusterLayout.walFile(file, of: system, tag: parsed.tag)
                if cluster.name(name) == entry.name {
                    found.append((ArchivedFile(file: file, name: name, tag: parsed.tag), entry.status.sizeBytes))
                }
            }
            return last < file.text || last.hasPrefix(file.text)
        }
        return found
    }

    /// All objects of a segment or partial segment, whatever their names carry, with their status. What lies elsewhere
    /// under such a name, as in a directory below, is none.
    package func copies(of file: WALFileName) throws(KedgeError) -> [(archived: ArchivedFile, status: ObjectStatus)] {
        var found: [(archived: ArchivedFile, status: ObjectStatus)] = []
        let directory = ClusterLayout.logDirectory(of: file, system)
        try cluster.forEachObject(below: directory) { (name, status) throws(KedgeError) in
            if let archived = archived(name), archived.file == file { found.append((archived, status)) }
        }
        return found
    }

    /// The first whole segment after `segment` on its timeline. Nil where there is none: `segment` lies at the end of
    /// what is archived.
    package func firstSegment(after segment: WALSegment) throws(KedgeError) -> WALSegment? {
        let directory = ClusterLayout.walDirectory(system, timeline: segment.timeline)
        let fileName = segment.fileName(segmentSize: registration.walSegmentSize)
        let position = ClusterLayout.walFile(.segment(fileName), of: system, tag: nil)
        var next: WALSegment?
        // Objects of the segment itself (tags, partials) come first; there are few of them.
        try store.visitObjects(below: cluster.name(directory), after: cluster.name(position), pageSize: 100) {
            (entry) throws(KedgeError) in
            guard case .segment(let name)? = ClusterLayout.parseWALFile(entry.name.lastComponent)?.file,
                let found = WALSegment(fileName: name, segmentSize: registration.walSegmentSize),
                found.number > segment.number
            else { return true }
            next = found
            return false
        }
        return next
    }

    // MARK: - Facts and bytes

    /// The facts of an archived file, by one short range read. Throws `not-found`, `damaged` and what reading throws.
    package func facts(of archived: ArchivedFile) throws(KedgeError) -> WALFileFacts {
        let name = cluster.name(archived.name)
        let bytes = try SealedObject.readFacts(
            name: cluster.scoped(archived.name), keyRing: cluster.repository.keyRing
        ) { (range) throws(KedgeError) in try store.readPrefix(name, limit: Int(range.upperBound)) }
        return try parseFacts(bytes, of: archived)
    }

    /// A whole archived file, with every byte checked: seals, size, content tag.
    ///
    /// Frames are opened by up to `threads` threads. Memory is that of the file and of its object. Throws `not-found`,
    /// `damaged` and what reading throws.
    package func read(
        _ archived: ArchivedFile, threads: Int
    ) throws(KedgeError) -> (facts: WALFileFacts, bytes: [UInt8]) {
        let sealed = try store.readAll(cluster.name(archived.name), limit: sealedLimit)
        let index = try index(of: sealed, archived)
        let bytes = try open(index, of: sealed, threads: threads)
        let tag = bytes.withBytes { WALFileFacts.tag(of: $0, clusterID: cluster.clusterID) }
        return (try facts(in: sealed, index, of: archived, tag), bytes)
    }

    /// The same in the memory of the object and of one frame: hands what the file holds to `take`, in order.
    ///
    /// Each piece is authentic, but only when this returns it is certain that they are the whole file. `storedBytes` is
    /// the object's size. Throws what `take` throws as well.
    package func stream(
        _ archived: ArchivedFile, storedBytes: UInt64,
        _ take: (UnsafeRawBufferPointer) throws(KedgeError) -> Void
    ) throws(KedgeError) -> WALFileFacts {
        guard storedBytes <= UInt64(sealedLimit) else {
            throw damaged(archived, "It is stored in \(storedBytes) bytes, more than any WAL file of this system.")
        }
        let sealed = try store.read(cluster.name(archived.name), range: 0..<storedBytes)
        let index = try index(of: sealed, archived)
        let hasher = WALFileFacts.tagHasher(clusterID: cluster.clusterID)
        try sealed.withBytes { (sealed) throws(KedgeError) in
            let opener = try FrameOpener(index.seal)
            var piece = FrameBuffer()
            for place in index.dataFrames {
                let frame = UnsafeRawBufferPointer(rebasing: sealed[place.range])
                piece.removeAll()
                try piece.append(upTo: place.header.rawLength) { (room) throws(KedgeError) in
                    try opener.open(frame, expecting: .data, number: place.header.number, into: room)
                }
                hasher.update(piece.bytes)
                try take(piece.bytes)
            }
        }
        return try facts(in: sealed, index, of: archived, hasher.hash())
    }

    /// More than any object of a WAL file has.
    private var sealedLimit: Int {
        let limit = Int(registration.walSegmentSize)
        return limit + limit / 8 + (1 << 20)
    }

    private func index(of sealed: [UInt8], _ archived: ArchivedFile) throws(KedgeError) -> ObjectIndex {
        try sealed.withBytes { (sealed) throws(KedgeError) in
            try ObjectIndex(
                sealed, kind: .walFile, name: cluster.scoped(archived.name), keyRing: cluster.repository.keyRing,
                limit: Int(registration.walSegmentSize))
        }
    }

    /// The facts in the object, held against its content, which has this tag.
    private func facts(
        in sealed: [UInt8], _ index: ObjectIndex, of archived: ArchivedFile, _ tag: ContentHash
    ) throws(KedgeError) -> WALFileFacts {
        let opener = try FrameOpener(index.seal)
        let raw = try sealed.withBytes { (sealed) throws(KedgeError) in try index.openFacts(of: sealed, with: opener) }
        let facts = try parseFacts(raw ?? [], of: archived)
        guard facts.length == UInt64(index.rawCount), facts.tag == tag else {
            throw damaged(
                archived,
                "Its facts promise \(facts.length) bytes with the tag \(facts.tag); it has \(index.rawCount) with "
                    + "\(tag).")
        }
        if case .segment = archived.file, facts.length != registration.walSegmentSize {
            throw damaged(archived, "It has \(facts.length) bytes and no segment of this system has that many.")
        }
        return facts
    }

    private func open(
        _ index: ObjectIndex, of sealed: [UInt8], threads: Int
    ) throws(KedgeError) -> [UInt8] {
        let places = Array(index.dataFrames)
        var bytes = [UInt8](unsafeUninitializedCapacity: index.rawCount) { _, count in count = index.rawCount }
        try bytes.withMutableBytes { (out) throws(KedgeError) in
            preferHugePages(out)
            try sealed.withBytes { (sealed) throws(KedgeError) in
                // Each frame has a place of its own in `out`, so threads never touch the same bytes.
                let shared = SharedBuffers(sealed: sealed, out: out)
                try parallelFor(
                    count: places.count, threads: threads, name: "open-wal",
                    makeState: { () throws(KedgeError) in try FrameOpener(index.seal) },
                    body: { (opener, number) throws(KedgeError) in
                        try index.open(places[number], of: shared.sealed, with: opener, into: shared.out)
                    })
            }
        }
        return bytes
    }

    /// Buffers that several threads use at once, each a part of its own.
    private struct SharedBuffers: @unchecked Sendable {
        let sealed: UnsafeRawBufferPointer
        let out: UnsafeMutableRawBufferPointer
    }

    private func parseFacts(_ bytes: [UInt8], of archived: ArchivedFile) throws(KedgeError) -> WALFileFacts {
        let facts = try WALFileFacts(JSONRecord(parsing: bytes, what: "facts of WAL file \"\(archived.file.text)\""))
        guard facts.file == archived.file, archived.tag == nil || archived.tag == facts.tag else {
            throw damaged(archived, "Its facts are about \"\(facts.file.text)\" with the tag \(facts.tag).")
        }
        return facts
    }

    private func damaged(_ archived: ArchivedFile, _ detail: String) -> KedgeError {
        KedgeError(
            .damaged, "cannot use archived WAL file \"\(archived.file.text)\"", detail: detail,
            hint: "Take it from another repository, and make a new backup.")
    }

    // MARK: - Storing

    /// What a put of a WAL file found.
    package enum PutResult: Sendable {
        case created
        /// An object of that name is there; its content decides.
        case exists(ArchivedFile)
    }

    /// The object that a WAL file with these facts is stored as.
    package func target(of facts: WALFileFacts) -> ArchivedFile {
        let needsTag: Bool
        switch facts.file {
        case .history, .backup: needsTag = false
        case .segment: needsTag = !store.capabilities.hasConditionalPut
        case .partial: needsTag = true
        }
        let tag = needsTag ? facts.tag : nil
        return ArchivedFile(
            file: facts.file, name: ClusterLayout.walFile(facts.file, of: system, tag: tag), tag: tag)
    }

    /// Stores a WAL file with one put, only if its name is free; durable when it returns `created`.
    ///
    /// Frames are compressed and sealed by up to `threads` threads, behind `gate` where there is one. Memory is that of
    /// the file and of its object.
    package func put(
        _ bytes: [UInt8], facts: WALFileFacts, threads: Int, gate: WorkGate? = nil
    ) throws(KedgeError) -> PutResult {
        let archived = target(of: facts)
        let relative = archived.name
        // Looked up first: a repeated push is common after a crash, and must not cost compressing it all again. And
        // what has another name, because of a tag, is not in the way of a put.
        if let present = try present(archived, facts) { return .exists(present) }
        func seal() throws(KedgeError) -> ObjectBody {
            try WALObjectWriter(cluster.newSeal(.walFile, relative), threads: threads).seal(bytes, facts: facts)
        }
        let body = if let gate { try gate.pass(seal) } else { try seal() }
        let outcome = try store.put(cluster.name(relative), body, .createOnly)
        return outcome == .created ? .created : .exists(archived)
    }

    /// What is there in the place of `target`: of several objects one whose name says that its content is another.
    private func present(_ target: ArchivedFile, _ facts: WALFileFacts) throws(KedgeError) -> ArchivedFile? {
        guard case .segment = target.file else {
            // Partial segments of different content lie beside each other.
            return try store.contains(cluster.name(target.name)) ? target : nil
        }
        let found = try listed(target.file).map(\.archived)
        return found.first { $0.tag != nil && $0.tag != facts.tag } ?? found.first
    }

    // MARK: - Timelines

    /// The archived histories of all timelines but those that can't be read; these come with their errors.
    package func histories() throws(KedgeError) -> (read: [TimelineID: TimelineHistory], unreadable: [UnreadableRecord])
    {
        var histories: [TimelineID: TimelineHistory] = [:]
        var unreadable: [UnreadableRecord] = []
        try cluster.forEachObject(below: ClusterLayout.historyDirectory(system)) { (name, _) throws(KedgeError) in
            guard let archived = archived(name), archived.tag == nil, case .history(let timeline) = archived.file else {
                return
            }
            do throws(KedgeError) {
                histories[timeline] = try history(archived, timeline)
            } catch {
                guard error.code == .damaged || error.code == .walInvalid || error.code == .keyMissing else {
                    throw error
                }
                unreadable.append(UnreadableRecord(name: archived.file.text, error: error))
            }
        }
        return (histories, unreadable)
    }

    func history(_ archived: ArchivedFile, _ timeline: TimelineID) throws(KedgeError) -> TimelineHistory {
        try TimelineHistory(parsing: read(archived, threads: 1).bytes, timeline: timeline)
    }
}
