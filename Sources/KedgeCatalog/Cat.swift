// `kedge cat`: one object of a repository, opened and checked.
//
// What can be large is never held as a whole: a manifest's entries are handed out one by one.

import KedgeCodec
package import KedgeCore
package import KedgeRepository

/// Opens one object for a person to read.
package struct Cat: Sendable {
    package struct Options: Sendable {
        package let repository: RepositorySource
        /// The object's full name, as it is stored: `main/catalog/backup/LABEL`.
        package let name: String
        package let view: View

        package init(repository: RepositorySource, name: String, view: View = .record) {
            self.repository = repository
            self.name = name
            self.view = view
        }
    }

    /// What to show of an object.
    package enum View: Sendable, Equatable {
        /// The record, or for what is none what describes it: a WAL file's facts, a pack's table.
        case record
        /// The bytes of a WAL file.
        case data
        /// The entries of a manifest.
        case entries
    }

    package enum Outcome: Sendable {
        /// A record, or what describes the object.
        case json(JSONValue)
        /// A WAL file's own bytes.
        case bytes([UInt8])
        /// A manifest's entries were handed out; so many.
        case entries(UInt64)
    }

    private let options: Options

    package init(_ options: Options) { self.options = options }

    /// Opens the object. `body` gets the entries, where these are asked for, in path order.
    ///
    /// Throws `usage` for a name that no object has and for a view that the object does not have, `not-found`,
    /// `damaged` and what opening, reading and `body` throw.
    package func run(_ body: (JSONValue) throws(KedgeError) -> Void) throws(KedgeError) -> Outcome {
        let repository = try options.repository.open(for: .read)
        guard let name = ObjectName(options.name) else { throw unknown("It is not a valid name.") }
        let parts = name.components
        if name == RepositoryLayout.marker || name.isBelow(RepositoryLayout.features)
            || name.isBelow(RepositoryLayout.keys)
        {
            try require(.record)
            return .json(try plain(name, repository))
        }
        guard let first = parts.first, parts.count > 1,
            let relative = ObjectName(parts.dropFirst().joined(separator: "/"))
        else { throw unknown("Objects of a cluster begin with the cluster's name.") }
        let cluster = try ClusterRepository.open(repository, clusterName: String(first))
        return try open(relative, in: cluster, body)
    }

    private func plain(_ name: ObjectName, _ repository: Repository) throws(KedgeError) -> JSONValue {
        try JSONValue(parsing: repository.store.readAll(name, limit: 64 << 10), what: "object \"\(name)\"")
    }

    private func open(
        _ relative: ObjectName, in cluster: ClusterRepository, _ body: (JSONValue) throws(KedgeError) -> Void
    ) throws(KedgeError) -> Outcome {
        let parts = relative.components.map { String($0) }
        let isManifest = parts.count == 3 && parts[0] == "backup" && parts[2] == "manifest"
        try require(.record, orElse: isManifest ? .entries : parts[0] == "wal" ? .data : nil)
        if isManifest, options.view == .entries { return try entries(relative, cluster, body) }
        switch (parts[0], parts.count) {
        case ("system", 2):
            guard let found = cluster.registrations.first(where: { $0.systemIdentifier.description == parts[1] }) else {
                throw missing()
            }
            return .json(found.jsonValue)
        case ("catalog", 3) where parts[1] == "backup": return .json(try record(.commitRecord, relative, cluster))
        case ("catalog", 3) where parts[1] == "intent": return .json(try record(.intent, relative, cluster))
        case ("catalog", 4) where parts[1] == "proof": return .json(try record(.proof, relative, cluster))
        case ("catalog", 3) where ["condemned", "removing"].contains(parts[1]):
            return .json(try record(.condemned, relative, cluster))
        case ("catalog", 3) where parts[1] == "pin": return .json(try record(.pin, relative, cluster))
        case ("catalog", 4) where parts[1] == "gap": return .json(try record(.gap, relative, cluster))
        case ("lease", 2): return .json(try record(.lease, relative, cluster))
        case ("backup", 3) where parts[2] == "manifest": return .json(try record(.manifest, relative, cluster))
        case ("pack", 3): return .json(try pack(relative, cluster))
        case ("wal", 4...): return try walFile(relative, parts, cluster)
        default: throw unknown("No kind of object lies there.")
        }
    }

    private func require(_ view: View, orElse other: View? = nil) throws(KedgeError) {
        guard options.view != view, options.view != other else { return }
        let (option, kind) = options.view == .data ? ("--data", "WAL file") : ("--entries", "manifest")
        throw KedgeError(
            .usage, "cannot show object \"\(options.name)\" with \(option): it is no \(kind)",
            hint: "Leave out \(option).")
    }

    private func entries(
        _ relative: ObjectName, _ cluster: ClusterRepository, _ body: (JSONValue) throws(KedgeError) -> Void
    ) throws(KedgeError) -> Outcome {
        let json = try record(.manifest, relative, cluster)
        let root = try ManifestRoot(JSONRecord(json, what: "object \"\(options.name)\""))
        var reader = ManifestReader(root, reader: PackReader(PackDirectories(cluster)))
        var count: UInt64 = 0
        while let entry = try reader.next() {
            try body(entry.summary)
            count += 1
        }
        return .entries(count)
    }

    private func record(
        _ kind: ObjectKind, _ relative: ObjectName, _ cluster: ClusterRepository
    ) throws(KedgeError) -> JSONValue {
        let sealed = try cluster.repository.store.readAll(cluster.name(relative), limit: ClusterRepository.recordLimit)
        let contents = try SealedObject.open(
            sealed, kind: kind, name: cluster.scoped(relative), keyRing: cluster.repository.keyRing,
            limit: ClusterRepository.recordLimit)
        return try JSONValue(parsing: contents.data, what: "object \"\(options.name)\"")
    }

    private func pack(_ relative: ObjectName, _ cluster: ClusterRepository) throws(KedgeError) -> JSONValue {
        let store = cluster.repository.store
        let name = cluster.name(relative)
        guard let status = try store.status(of: name) else { throw missing() }
        let reader = try ObjectReader(
            kind: .pack, name: cluster.scoped(relative), keyRing: cluster.repository.keyRing, length: status.sizeBytes
        ) { (range) throws(KedgeError) in try store.read(name, range: range) }
        let table = try reader.packDirectory().table
        let frames = table.frames.map { frame -> JSONValue in
            let sources = table.sources[frame.sources].map { source -> JSONValue in
                [
                    "path": ManifestPath(bytes: source.path).jsonValue, "offset": .int(source.offset),
                    "length": .int(source.length), "checksum": .string(source.checksum.hex),
                ]
            }
            return [
                "storedLength": .int(frame.storedLength), "rawLength": .int(frame.rawLength),
                "sources": .array(Array(sources)),
            ]
        }
        return ["kedge": "pack", "length": .int(status.sizeBytes), "frames": .array(frames)]
    }

    private func walFile(
        _ relative: ObjectName, _ parts: [String], _ cluster: ClusterRepository
    ) throws(KedgeError) -> Outcome {
        guard let system = SystemIdentifier(parts[1]),
            let parsed = ClusterLayout.parseWALFile(relative.lastComponent),
            ClusterLayout.walFile(parsed.file, of: system, tag: parsed.tag) == relative
        else { throw unknown("It is not where a WAL file lies.") }
        let archive = WALArchive(cluster, try cluster.registration(of: system))
        let archived = ArchivedFile(file: parsed.file, name: relative, tag: parsed.tag)
        guard options.view == .data else { return .json(try archive.facts(of: archived).jsonValue) }
        return .bytes(try archive.read(archived, threads: 1).bytes)
    }

    private func unknown(_ why: String) -> KedgeError {
        KedgeError(
            .usage, "cannot open object \"\(options.name)\"", detail: why,
            hint:
                "Give the name as it is stored, such as main/catalog/backup/LABEL; Catalog/FORMAT.md section 1 "
                + "lists all."
        )
    }

    private func missing() -> KedgeError {
        KedgeError(
            .notFound, "could not find object \"\(options.name)\"",
            detail: "Repository \"\(options.repository.settings.name)\" holds no object of that name.",
            hint: "Run \"kedge info\" to see what the repository holds.")
    }
}

extension ManifestEntry {
    /// What a person wants to know of it; where its content lies is left to its extents.
    fileprivate var summary: JSONValue {
        let octal = String(mode, radix: 8)
        var members = [
            JSONMember("path", path.jsonValue), JSONMember("kind", .string(kind.word)),
            JSONMember("mode", .string(String(repeating: "0", count: max(0, 4 - octal.utf8.count)) + octal)),
            JSONMember("modified", .string(Timestamp(microseconds: modificationTime / 1000).description)),
        ]
        switch kind {
        case .directory: break
        case .symbolicLink(let target): members.append(JSONMember("target", ManifestPath(bytes: target).jsonValue))
        case .file(let content), .extraFile(let content):
            members.append(JSONMember("size", .int(content.size)))
            members.append(JSONMember("extents", .int(content.extents.count)))
        }
        return .object(members)
    }
}

extension ManifestEntry.Kind {
    fileprivate var word: String {
        switch self {
        case .file: "file"
        case .directory: "directory"
        case .symbolicLink: "link"
        case .extraFile: "extra-file"
        }
    }
}
