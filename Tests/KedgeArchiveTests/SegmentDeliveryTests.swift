// Where archive-get writes: nothing but a file is replaced, what killed runs left goes, and what fails there is not
// called a repository's fault.
import Glibc
import KedgeArchive
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct SegmentDeliveryTests {
    let fixture: ArchiveFixture
    let harness: ArchiveHarness
    let name: String

    init() throws {
        fixture = try ArchiveFixture()
        harness = ArchiveHarness(fixture: fixture, repositories: [try fixture.makeRepository(in: MemoryStore())])
        name = try fixture.writeSegments(count: 1)[0]
        _ = try harness.push(name)
    }

    private func failure() -> KedgeError? { #expect(throws: KedgeError.self) { try harness.get(name) } }

    @Test("only a regular file is replaced: a device, a link or a directory is left alone")
    func irregularDestinations() throws {
        let path = harness.destination
        let target = fixture.path("pg_wal/target")
        try fixture.write("pg_wal/target", [7])
        let kinds: [(what: String, make: () throws -> Void)] = [
            ("a device, a pipe or a socket", { _ = try Subprocess(["mkfifo", path.description]).run() }),
            ("a symbolic link", { try FileSystem.createSymbolicLink(at: path, target: target) }),
            ("a symbolic link", { try FileSystem.createSymbolicLink(at: path, target: "/nowhere") }),
        ]
        for (what, make) in kinds {
            try make()
            let before = try FileStatus(at: path)
            let error = failure()
            #expect(error?.code == .inputOutput)
            #expect(error?.message == "could not write WAL file \"\(name)\" to its destination \"\(path)\"")
            #expect(error?.detail == "There is \(what) of that name, which was left alone.")
            #expect(try FileStatus(at: path).inode == before.inode)
            try FileSystem.removeFile(at: path)
        }
        _ = try Directory.create(at: path)
        #expect(failure()?.detail == "There is a directory of that name, which was left alone.")
        try FileSystem.removeDirectory(at: path)
        #expect(try FileDescriptor.open(target, .read).readAll(limit: 9) == [7])
        // pg_rewind may name a file that is there.
        try fixture.write("pg_wal/RECOVERYXLOG", [1, 2, 3])
        #expect(try harness.get(name) == .fetched(repository: "main"))
        #expect(try harness.fetched() == harness.local(name))
    }

    @Test("what a killed run left beside the destination goes once it is old, and nothing else does")
    func leftovers() throws {
        let now = harness.time.now()
        func plant(_ name: String, ageSeconds: Int64) throws -> String {
            try fixture.write("pg_wal/" + name, [1])
            let file = try FileDescriptor.open(fixture.path("pg_wal/" + name), [.read, .write])
            try file.setTimes(nanoseconds: (now.microseconds - ageSeconds * 1_000_000) * 1000)
            return name
        }
        let digits = String(repeating: "0a", count: 16)
        let old = try plant(".kedge~\(digits)", ageSeconds: 601)
        var kept = [
            try plant(".kedge~1\(digits.dropFirst())", ageSeconds: 599),
            try plant(".kedge~2\(digits.dropFirst())", ageSeconds: -3600),
            try plant(".kedge~\(digits)0", ageSeconds: 99_999),
            try plant(".kedge~\(digits.uppercased())", ageSeconds: 99_999),
            try plant(".kedge~~\(digits)", ageSeconds: 99_999),
            try plant("x.kedge~\(digits)", ageSeconds: 99_999),
            try plant(".kedge\(digits)", ageSeconds: 99_999),
            ".kedge~3\(digits.dropFirst())", ".kedge~4\(digits.dropFirst())",
        ]
        _ = try Directory.create(at: fixture.path("pg_wal/" + kept[7]))
        try FileSystem.createSymbolicLink(at: fixture.path("pg_wal/" + kept[8]), target: "/nowhere")
        #expect(try harness.get(name) == .fetched(repository: "main"))
        #expect(try FileSystem.exists(fixture.path("pg_wal/" + old)))
        // Each 16th segment looks.
        let looking = try fixture.writeSegments(count: 1, first: 16)[0]
        _ = try harness.push(looking)
        #expect(try harness.get(looking) == .fetched(repository: "main"))
        #expect(try !FileSystem.exists(fixture.path("pg_wal/" + old)))
        kept.removeAll { (try? FileSystem.exists(fixture.path("pg_wal/" + $0))) ?? false }
        #expect(kept == [])
    }

    @Test("an error of the destination names it and its file system, and blames no repository")
    func destinationFails() throws {
        let second = try fixture.makeRepository(in: MemoryStore())
        for repositories in [harness.repositories, [harness.repositories[0], second]] {
            var options = ArchiveGet.Options(
                fileName: name, destination: fixture.path("gone/RECOVERYXLOG"), clusterName: "main",
                dataDirectory: fixture.path("."), repositories: repositories, threads: 1, timeoutNanoseconds: 0)
            options.warn = { Issue.record("\($0)") }
            let get = ArchiveGet(
                options, random: SystemRandomSource(), time: harness.time, interruption: Interruption())
            let error = #expect(throws: KedgeError.self) { try get.run() }
            #expect(error?.code == .notFound)
            let path = fixture.path("gone")
            #expect(
                error?.message
                    == "could not write WAL file \"\(name)\" to its destination \"\(path)/RECOVERYXLOG\"")
            let detail = error?.detail ?? ""
            #expect(detail.hasPrefix("could not open directory \"\(path)\". The system said: "), "\(detail)")
            #expect(detail.contains("The file system at \""), "\(detail)")
            #expect(error?.cause == nil)
        }
    }
}
