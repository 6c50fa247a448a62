// An empty mount point is not the place of a new repository: what init, archive-push and archive-get do where another
// repository, or none, lies in a place than the one that this host has seen there; and when init makes a key.
import Glibc
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct RepositoryPlaceTests {
    private let fixture: ArchiveFixture
    private let directory: TemporaryDirectory
    private let segments: [String]

    init() throws {
        fixture = try ArchiveFixture()
        directory = try TemporaryDirectory()
        segments = try fixture.writeSegments(count: 2)
        let text = """
            [repository main]
            type = local
            path = \(directory("repo"))
            encryption = aes-256-gcm
            key-file = \(directory("k.key"))
            [cluster c]
            pgdata = \(fixture.directory.path)
            repositories = main
            work-directory = \(directory("work"))
            archive-get-timeout = 0s
            """
        try write("k.conf", text)
    }

    private func write(_ name: String, _ text: String) throws {
        _ = try DurableFile.write(
            Array(text.utf8), to: RawPath(directory(name)), mode: 0o600, replacing: true, random: SystemRandomSource())
    }

    private func move(_ name: String, _ target: String) { #expect(rename(directory(name), directory(target)) == 0) }

    private func exists(_ name: String) throws -> Bool { try FileSystem.exists(RawPath(directory(name))) }

    private func run(_ words: String..., existing: [String] = []) -> ToolRun {
        ToolRun(
            ["--config", directory("k.conf")] + words, existing: existing, readFile: SmallFile.read,
            changing: { surroundings in
                surroundings.host = HostFacts(processors: 1, userID: geteuid(), name: "db1")
                surroundings.placeMemory = Surroundings.real.placeMemory
                surroundings.keyMemory = Surroundings.real.keyMemory
            })
    }

    private func initialize() { #expect(run("init", "--generate-key", directory("k.key")).ending == .exit(0)) }

    private func push(_ name: String) -> ToolRun { run("archive-push", fixture.path("pg_wal/" + name).description) }

    private func get(_ name: String, _ signal: String = "recovery.signal") -> ToolRun {
        run("archive-get", name, directory("out"), existing: [signal, "pg_wal"])
    }

    /// The identifier that an error tells to confirm.
    private func toConfirm(_ run: ToolRun) -> String {
        String((run.errors.split(separator: "--replace-repository ").dropFirst().first ?? "").prefix(32))
    }

    @Test("where a repository was seen, init makes no second one unasked, not even its directory")
    func unmounted() throws {
        initialize()
        #expect(push(segments[0]).ending == .exit(0))
        move("repo", "disk")
        let absent = run("init")
        #expect(absent.ending == .exit(1))
        #expect(absent.errors.contains("its place holds no repository now"), "\(absent.errors)")
        #expect(try !exists("repo"))
        _ = try Directory.create(at: RawPath(directory("repo")))
        let refused = run("init")
        #expect(refused.ending == .exit(1) && toConfirm(refused).utf8.count == 32, "\(refused.errors)")
        #expect(run("init", "--replace-repository", String(repeating: "0", count: 32)).ending == .exit(1))
        #expect(run("init", "--replace-repository", "x").ending == .exit(2))
        #expect(try Directory.entries(at: RawPath(directory("repo"))).isEmpty)
        #expect(get(segments[0]).ending == .exit(126))
        // Mounted again, all is as before.
        move("repo", "empty")
        move("disk", "repo")
        #expect(run("init").ending == .exit(0))
        #expect(get(segments[0]).ending == .exit(0))
    }

    @Test("another repository in a place serves what it has, but nothing is written to it and no absence proven by it")
    func another() throws {
        initialize()
        #expect(push(segments[0]).ending == .exit(0))
        #expect(get(segments[1]).ending == .exit(1))
        move("repo", "disk")
        // Somebody whose host does not know made one all the same.
        #expect(run("init", "--work-directory", directory("other")).ending == .exit(0))
        for name in [segments[0], "00000002.history"] {
            let found = get(name)
            #expect(found.ending == .exit(126), "\(name)")
            #expect(found.errors.contains("code: repository-unavailable"), "\(found.errors)")
            #expect(get(name, "standby.signal").ending == .exit(1), "\(name)")
        }
        let pushed = push(segments[1])
        #expect(pushed.ending == .exit(1))
        #expect(pushed.errors.contains("its place holds another one now"), "\(pushed.errors)")
        #expect(run("init").ending == .exit(1))
        // Confirmed, it is the one that counts; and the first one is a stranger then.
        #expect(run("init", "--replace-repository", toConfirm(pushed)).ending == .exit(0))
        #expect(run("init").ending == .exit(0))
        #expect(push(segments[1]).ending == .exit(0))
        move("repo", "second")
        move("disk", "repo")
        #expect(push(segments[1]).ending == .exit(1))
        #expect(get(segments[0]).ending == .exit(0))
        #expect(get("00000002.history").ending == .exit(126))
    }

    @Test("what refuses another repository names its note, which may be removed where init is of no use")
    func noteIsNamed() throws {
        initialize()
        move("repo", "disk")
        #expect(run("init", "--work-directory", directory("other")).ending == .exit(0))
        // What somebody else confirms, in a work-directory of his own, does not count here.
        let known = toConfirm(push(segments[0]))
        #expect(run("init", "--work-directory", directory("root"), "--replace-repository", known).ending == .exit(0))
        let refused = push(segments[0])
        #expect(refused.ending == .exit(1))
        let notes = try Directory.entries(at: RawPath(directory("work"))).compactMap(\.name.text)
            .filter { $0.hasPrefix("repository-at-") }
        let note = directory("work/" + (notes.first ?? ""))
        #expect(notes.count == 1 && refused.errors.contains("noted that in \"\(note)\""), "\(refused.errors)")
        try FileSystem.removeFile(at: RawPath(note))
        #expect(push(segments[0]).ending == .exit(0))
    }

    @Test("without its notes a host knows nothing and refuses nothing, and the next use makes them again")
    func forgotten() throws {
        initialize()
        move("repo", "disk")
        move("work", "lost")
        let made = run("init")
        #expect(made.ending == .exit(0) && made.errors.isEmpty, "\(made.errors)")
        move("work", "lost2")
        #expect(get("00000002.history").ending == .exit(1))
        move("repo", "second")
        #expect(run("init").ending == .exit(1))
    }

    @Test("a note that is damaged or of another place is reported and made anew; one that can't be stops nobody")
    func unusableNote() throws {
        initialize()
        let notes = try Directory.entries(at: RawPath(directory("work"))).compactMap(\.name.text)
            .filter { $0.hasPrefix("repository-at-") }
        #expect(notes.count == 1)
        let foreign = "{\"kedge\":\"repository-place\",\"place\":\"x\",\"repository\":\"\(notes[0].suffix(32))\"}"
        for text in ["", "{", foreign] {
            try write("work/" + notes[0], text)
            let found = get(segments[1])
            #expect(found.ending == .exit(1))
            #expect(found.errors.contains("could not read which repository lies in path"), "\(found.errors)")
            #expect(get(segments[1]).errors.isEmpty)
        }
        try FileSystem.removeFile(at: RawPath(directory("work/" + notes[0])))
        #expect(chmod(directory("work"), 0o777) == 0)
        let pushed = push(segments[0])
        #expect(pushed.ending == .exit(0))
        #expect(pushed.errors.contains("could not remember which repository lies in path"), "\(pushed.errors)")
    }

    @Test("a work-directory that can't be used for notes of data keys is told once in one command")
    func unusableDirectory() throws {
        initialize()
        #expect(chmod(directory("work"), 0o777) == 0)
        for run in [push(segments[0]), get(segments[0])] {
            #expect(run.ending == .exit(0))
            #expect(
                run.errors.split(separator: "\n").count { $0.contains("no note of the newest data key") } == 1,
                "\(run.errors)")
        }
    }

    @Test("nobody believes what lies in a directory that is not safe, but root, who runs init beside the server's user")
    func foreignNotes() throws {
        func notes(_ user: UInt32) -> PlaceNotes {
            PlaceNotes(
                of: "path \"/x\"", in: [directory("work"), directory("none")], user: user, random: SystemRandomSource(),
                warn: { Issue.record("\($0)") })
        }
        let (own, id) = (geteuid(), RandomID(high: 1, low: 2))
        PlaceNotes(
            of: "path \"/x\"", in: [directory("work")], user: own, random: SystemRandomSource(), warn: { _ in }
        ).remember(id)
        #expect(notes(own).known() == [id, nil])
        #expect(chmod(directory("work"), 0o777) == 0)
        #expect(notes(own + 1).known() == [nil, nil])
        #expect(notes(0).known() == [id, nil])
        // One that can't be written does not make the others anew each time.
        #expect(chmod(directory("work"), 0o700) == 0)
        let both = PlaceNotes(
            of: "path \"/x\"", in: [directory("work"), directory("none/none")], user: own,
            random: SystemRandomSource(), warn: { _ in })
        let note = try #require(both.locations.first)
        let before = try FileStatus(at: RawPath(note)).inode
        both.remember(id)
        #expect(try FileStatus(at: RawPath(note)).inode == before)
        both.remember(RandomID(high: 1, low: 3))
        #expect(both.known() == [RandomID(high: 1, low: 3), nil])
    }

    @Test("a key is written only where a repository is made with it, and never over a file that is there")
    func newKey() throws {
        // What is refused for any reason leaves none.
        _ = try Directory.create(at: RawPath(directory("repo")))
        try write("repo/x", "x")
        #expect(run("init", "--generate-key", directory("k.key")).errors.contains("code: not-empty"))
        #expect(try !exists("k.key"))
        move("repo", "strangers")
        // A new disk, mounted.
        _ = try Directory.create(at: RawPath(directory("repo")))
        initialize()
        let key = try SmallFile.read(directory("k.key"), "key", 100)
        #expect(key.mode & 0o777 == 0o600)
        let again = run("init", "--generate-key", directory("k.key"))
        #expect(again.ending == .exit(0))
        #expect(again.output.hasPrefix("left key file"), "\(again.output)")
        #expect(try SmallFile.read(directory("k.key"), "key", 100).bytes == key.bytes)
        // A lost one is not replaced by one that opens nothing.
        move("k.key", "lost.key")
        let refused = run("init", "--generate-key", directory("k.key"))
        #expect(refused.ending == .exit(1))
        #expect(refused.errors.contains("code: key-missing"), "\(refused.errors)")
        #expect(try !exists("k.key"))
        // Nor is one made where the disk is away.
        move("repo", "disk")
        #expect(run("init", "--generate-key", directory("k.key")).ending == .exit(1))
        #expect(try !exists("k.key") && !exists("repo"))
    }
}
