// The spool: what this host remembers of one cluster's WAL so that it need not be asked of a repository again.
//
//   durable/<segment>           a note that this very file is durable in these repositories (PushNote.swift)
//   fetched/<server>/<segment>  a segment that was fetched ahead for a recovering server (FetchedCopies.swift)
//   given-up/<system>-<segment> why a segment is missing, until every repository knows (QueueLimit.swift)
//   away/<hash of a name>       a repository that failed or hung when it was last asked (AwayRepositories.swift)
//   put-off/<system>-<file>     a history or its like that waits for the repositories here (PutOffCopy.swift)
//
// 1. It is a cache and never the truth: every file of it may vanish at any moment, and is checked before it is used.
//    Removing it costs time. So nothing here is synced (but given-up and put-off), and no failure here is that of a
//    command.
// 2. A record is followed by its checksum and appears by a rename, but for `asked`, which is written over: one that is
//    torn, or was touched, is no record.
// 3. It is bounded: what belongs to nothing that is still to be done is removed by whoever adds to it.
// 4. Its directory belongs to the user that runs kedge, and nobody else can write to it: a forged note would lose WAL.

import KedgeCodec
package import KedgeCore

/// The spool of one cluster on this host.
package struct Spool: Sendable {
    /// `<work-directory>/spool/<cluster>`.
    package let directory: RawPath
    private let levels: [RawPath]
    private let isSafe: @Sendable () throws(KedgeError) -> Bool
    private let prepare: @Sendable () throws(KedgeError) -> Void
    let random: any RandomSource

    /// The spool of the cluster called `clusterName` below a work directory. `isSafe` says whether that directory is
    /// there and throws where others could have written to it; `prepare` makes it.
    package init(
        workDirectory: RawPath, clusterName: String, random: any RandomSource,
        isSafe: @escaping @Sendable () throws(KedgeError) -> Bool,
        prepare: @escaping @Sendable () throws(KedgeError) -> Void
    ) {
        levels = [workDirectory.appending("spool"), workDirectory.appending("spool").appending(clusterName)]
        directory = levels[1]
        self.random = random
        self.isSafe = isSafe
        self.prepare = prepare
    }

    /// A directory of the spool.
    enum Part: String {
        case durable, fetched, away
        case givenUp = "given-up"
        case putOff = "put-off"
    }

    /// Where a part lies.
    func path(_ part: Part) -> RawPath { directory.appending(part.rawValue) }

    /// Whether there is a spool; throws where others could have written to it.
    func canBeRead() throws(KedgeError) -> Bool { try isSafe() }

    // MARK: - Records

    /// The record `name`; nil where there is none, or none that can be believed.
    func read(_ name: String, in part: Part) -> JSONRecord? {
        do throws(KedgeError) {
            guard try isSafe() else { return nil }
            let bytes = try FileDescriptor.open(path(part).appending(name), [.read, .noFollow])
                .readAll(limit: Spool.recordLimit)
            guard let text = Spool.checked(bytes) else { return nil }
            return try JSONRecord(parsing: text, what: "spool record \"\(name)\"")
        } catch {
            return nil
        }
    }

    /// Writes, or replaces, a record. Throws what writing throws.
    func write(_ record: JSONValue, as name: String, in part: Part) throws(KedgeError) {
        let file = try DurableFile(in: try open(part), mode: 0o600, random: random)
        try file.file.write(Spool.sealed(record), at: 0)
        try file.publishWithoutSync(as: RawPath(name))
    }

    /// Writes, or replaces, a record, and makes it and the way to it durable.
    func writeDurably(_ record: JSONValue, as name: String, in part: Part) throws(KedgeError) {
        _ = try writeDurably(bytes: Spool.sealed(record), as: name, in: part, replacing: true)
    }

    /// The same for a file of any bytes. Where one is there that is not to be replaced, it is made durable instead.
    func writeDurably(
        bytes: [UInt8], as name: String, in part: Part, replacing: Bool
    ) throws(KedgeError) -> DurableFile.Outcome {
        let file = try DurableFile(in: try open(part), mode: 0o600, random: random)
        try file.file.write(bytes, at: 0)
        let outcome = try file.publish(as: RawPath(name), replacing: replacing)
        // Whoever wrote it may have died before it synced the directory.
        if outcome == .alreadyExists { try Directory.sync(path(part)) }
        for level in levels.reversed() { try Directory.sync(level) }
        try Directory.sync(levels[0].parent)
        try Directory.sync(levels[0].parent.parent)
        return outcome
    }

    /// The names of a part's records, sorted; empty where it can't be listed.
    func names(in part: Part) -> [String] {
        do throws(KedgeError) {
            guard try isSafe() else { return [] }
            return try Directory.entries(at: path(part)).compactMap(\.name.text)
        } catch {
            return []
        }
    }

    /// How many notes of archived segments there are.
    package var noteCount: Int { names(in: .durable).filter { WALFileName($0) != nil }.count }

    /// Removes records, as far as that is possible: what stays is checked before it is used.
    func remove(_ names: some Sequence<String>, in part: Part) {
        for name in names {
            do throws(KedgeError) {
                try FileSystem.removeFile(at: path(part).appending(name))
            } catch {
                // Gone already, or it will be tried again.
            }
        }
    }

    /// Forgets what is durable and what was fetched, as whoever makes a repository anew must. What was given up
    /// or put off stays until it is told.
    package func removeAll() throws(KedgeError) {
        guard try isSafe() else { return }
        for part in [Part.durable, .fetched, .away] {
            do throws(KedgeError) {
                try Directory.removeTree(at: path(part))
            } catch  where error.code == .notFound {
                // There was none.
            }
        }
    }

    /// Opens a part; it and what is above it is made where it is missing.
    func open(_ part: Part) throws(KedgeError) -> FileDescriptor {
        try prepare()
        do throws(KedgeError) {
            return try FileDescriptor.open(path(part), [.read, .directory, .noFollow])
        } catch  where error.code == .notFound {
            for level in levels + [path(part)] { _ = try Directory.createPlain(at: level, mode: 0o700) }
            return try FileDescriptor.open(path(part), [.read, .directory, .noFollow])
        }
    }

    // MARK: - Checksums

    /// A record in bytes: its JSON on one line, and on the next the hash of that line.
    static func sealed(_ record: JSONValue) -> [UInt8] {
        let text = Array(record.compactText.utf8)
        return text + [0x0A] + Array(ContentHash(of: text).hex.utf8) + [0x0A]
    }

    /// The JSON of a record in bytes; nil where its hash is another one.
    static func checked(_ bytes: [UInt8]) -> [UInt8]? {
        let tail = 34
        guard bytes.count > tail, bytes[bytes.count - tail] == 0x0A, bytes[bytes.count - 1] == 0x0A else { return nil }
        let text = Array(bytes[..<(bytes.count - tail)])
        let hash = ContentHash(
            hex: String(decoding: bytes[(bytes.count - tail + 1)..<(bytes.count - 1)], as: UTF8.self))
        return hash == ContentHash(of: text) ? text : nil
    }

    static let recordLimit = 64 << 10
}
