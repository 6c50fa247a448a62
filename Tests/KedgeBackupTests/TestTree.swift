// A made-up data directory for tests that need no server.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeBackup

/// A directory tree below `/tmp`, removed with the value.
struct TestTree {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try makeDirectory("data")
        for name in ["data/base", "data/global", "data/pg_tblspc", "data/pg_wal", "work"] { try makeDirectory(name) }
    }

    var dataDirectory: RawPath { path("data") }
    var workDirectory: RawPath { path("work") }

    func path(_ name: String) -> RawPath { RawPath(directory(name)) }

    func makeDirectory(_ name: String) throws { try Directory.createWithParents(at: path(name)) }

    func write(_ name: String, _ bytes: [UInt8] = [1]) throws { try write(path(name), bytes) }

    func write(_ path: RawPath, _ bytes: [UInt8]) throws {
        let file = try FileDescriptor.open(path, [.write, .create, .truncate])
        try file.write(bytes, at: 0)
    }

    func link(_ name: String, to target: String) throws {
        try FileSystem.createSymbolicLink(at: path(name), target: RawPath(target))
    }

    /// Walks the tree as a cluster of PostgreSQL 15 with two blocks a relation file.
    func walk(
        configurationFiles: [RawPath] = [], ownDirectories: [RawPath] = []
    ) throws -> (listing: FileListing, entries: [ListedEntry], outcome: FileWalk.Outcome) {
        let listing = try FileListing(in: workDirectory, random: SystemRandomSource())
        let options = FileWalk.Options(
            dataDirectory: dataDirectory, policy: FilePolicy(majorVersion: 15, catalogVersion: 202_209_061),
            relationSegmentBlocks: 2, configurationFiles: configurationFiles, ownDirectories: ownDirectories)
        let outcome = try FileWalk.run(options, into: listing, unless: Interruption(), time: ManualTime())
        var entries: [ListedEntry] = []
        try listing.forEach { index, entry throws(KedgeError) in
            #expect(index == UInt64(entries.count))
            entries.append(entry)
        }
        return (listing, entries, outcome)
    }
}
