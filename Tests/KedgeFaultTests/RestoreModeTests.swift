// That files come back whose mode forbids their owner to write them, whatever size they have: a data directory holds
// such files where people put keys into it.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct RestoreModeTests {
    private static let files: [String: (mode: UInt32, bytes: [UInt8])] = [
        "large": (0o400, (0..<(3 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 8) }),
        "small": (0o440, [1, 2, 3]), "none": (0o000, [UInt8](repeating: 5, count: 2 << 20)),
        "usual": (0o640, [UInt8](repeating: 6, count: 2 << 20)),
    ]

    /// Runs `body` on a thread that has no right on files beyond those of the servers' user.
    private static func asServerUser<Value: Sendable>(
        _ body: @escaping @Sendable () throws(KedgeError) -> Value
    ) throws -> Value {
        let result = Monitor<Result<Value, KedgeError>?>(nil)
        let thread = try Thread(name: "server user") {
            ServerUser.useFileRights()
            let outcome = Result { () throws(KedgeError) in try body() }
            result.update { $0 = outcome }
        }
        thread.join()
        return try #require(result.update { $0 }).get()
    }

    @Test("a file that its owner may not write is restored, and put right by --delta, by who is not root")
    func unwritable() throws {
        let place = try HostileManifestTests.Place()
        try ServerUser.own(place.directory("work"))
        let (repository, backup, record) = try HostileManifestTests.repository()
        let entries =
            PaperEntry.minimal() + Self.files.map { PaperEntry($0.key, .file($0.value.bytes), mode: $0.value.mode) }
        try backup.commit(HostileManifestTests.sorted(entries), as: record)
        var options = Restore.Options(
            clusterName: "main", request: RestoreRequest(target: .immediate), pgdata: place.target,
            configuredPgdata: "/nowhere", restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 2,
            workDirectory: RawPath(place.directory("work")))
        func restore() throws {
            let options = options
            _ = try Self.asServerUser { () throws(KedgeError) in try Restore(repository.source, options).run() }
            for (name, expected) in Self.files {
                let path = place.target.appending(RawPath(name))
                #expect(try FileStatus(at: path).mode == expected.mode, "\(name)")
                chmod(path.description, 0o600)
                #expect(try FileDescriptor.open(path, .read).readAll(limit: 4 << 20) == expected.bytes, "\(name)")
                chmod(path.description, expected.mode)
            }
        }
        try restore()
        options.isDelta = true
        // Missing; and as an interrupted restore leaves it, with its own mode still to come.
        for name in Self.files.keys { unlink(place.target.appending(RawPath(name)).description) }
        try restore()
        for name in Self.files.keys {
            let path = place.target.appending(RawPath(name))
            chmod(path.description, 0o600)
            try FileDescriptor.open(path, .write).write([9], at: 0)
        }
        try restore()
    }
}
