// What the command lines of archive-push and archive-get add to their use cases.
import Glibc
import KedgeArchive
import KedgeCore
import KedgeRepository
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct ArchiveCommandTests {
    private static func files(_ cluster: String = "") -> [String: String] {
        [
            "/etc/kedge/kedge.conf": """
            [repository main]
            path = /none/at/all
            encryption = none
            [repository other]
            path = /none/at/other
            encryption = none
            [cluster c]
            pgdata = /none
            \(cluster)
            """
        ]
    }

    private static let push = ["archive-push", "pg_wal/000000010000000000000001"]
    private static let get = ["archive-get", "000000010000000000000001", "pg_wal/RECOVERYXLOG"]
    private static let variable = [EnvironmentVariable("KEDGE_REPOSITORY", "main")]

    @Test("one repository can't be selected where all are written or read, and archive-get does not say absent")
    func selectedRepository() {
        func text(_ command: String) -> String {
            """
            kedge: error: cannot run "\(command)" with repository "main" alone
            detail: It works with all repositories of cluster "c" (main, other), and --repository or KEDGE_REPOSITORY \
            names one.
            hint: Leave that out, or name those that are meant with "--repositories main".
            code: usage

            """
        }
        for (words, variables) in [(["--repository", "main"], []), ([], Self.variable)] {
            let push = ToolRun(words + Self.push, files: Self.files(), environment: variables)
            #expect(push.ending == .exit(2))
            #expect(push.errors == text("archive-push"))
            for (existing, status) in [([], Int32(126)), (["recovery.signal"], 126), (["standby.signal"], 1)] {
                let get = ToolRun(
                    words + Self.get, files: Self.files(), environment: variables, existing: existing)
                #expect(get.ending == .exit(status))
                #expect(get.errors == text("archive-get"))
            }
            // What the cluster's section says of that holds too.
            let configured = ToolRun(
                words + Self.get, files: Self.files("on-unavailable = abort"), environment: variables,
                existing: ["standby.signal"])
            #expect(configured.ending == .exit(126))
        }
    }

    @Test("a selected repository that is the only one, and one beside --repositories, keeps nothing from working")
    func harmlessSelection() {
        for words in [Self.push, Self.get] {
            let alone = ToolRun(words, files: Self.files("repositories = main"), environment: Self.variable)
            #expect(!alone.errors.contains("code: usage"), "\(alone.errors)")
            let told = ToolRun(
                words + ["--repositories", "other"], files: Self.files(), environment: Self.variable)
            #expect(!told.errors.contains("code: usage"), "\(told.errors)")
        }
    }

    @Test("requests to a store are made six times for whom PostgreSQL asks again, for others until the time is up")
    func attempts() throws {
        let fixture = try ArchiveFixture()
        let name = try fixture.writeSegments(count: 1)[0]
        let file = """
            [repository main]
            type = s3
            endpoint = http://127.0.0.1:1
            region = us-east-1
            bucket = bucket
            encryption = none
            [cluster c]
            pgdata = \(fixture.directory.path)
            work-directory = \(fixture.path("work"))
            """
        let credentials = [
            EnvironmentVariable("AWS_ACCESS_KEY_ID", "id"), EnvironmentVariable("AWS_SECRET_ACCESS_KEY", "secret"),
        ]
        func attempts(_ words: [String], _ existing: [String] = []) -> Int? {
            let run = ToolRun(
                words, files: ["/etc/kedge/kedge.conf": file], environment: credentials, existing: existing,
                changing: { $0.time = ManualTime() })
            return run.errors.firstMatch(of: /It was tried (\d+) times/).flatMap { Int($0.1) }
        }
        #expect(attempts(["archive-push", fixture.path("pg_wal/" + name).description]) == 6)
        #expect(attempts(Self.get, ["standby.signal", "pg_wal"]) == 6)
        for signal in [["recovery.signal"], []] {
            let number = try #require(attempts(Self.get, signal))
            #expect(number > 6 && number < 100)
            #expect(attempts(Self.get + ["--archive-get-timeout", "0s"], signal) == 2)
        }
    }

    @Test("above archive-queue-limit what is noted as durable is acknowledged without a look at the repository")
    func noted() throws {
        let fixture = try ArchiveFixture()
        let repository = fixture.path("repository")
        try LocalStore.createRoot(at: repository.description)
        _ = try fixture.makeRepository(
            in: LocalStore(at: repository.description, marker: nil, random: SystemRandomSource()))
        let names = try fixture.writeSegments(count: 4)
        _ = try Directory.create(at: fixture.path("pg_wal/archive_status"))
        for name in names { try fixture.write("pg_wal/archive_status/\(name).ready", []) }
        let file = """
            [repository main]
            path = \(repository)
            encryption = none
            [cluster main]
            pgdata = \(fixture.directory.path)
            work-directory = \(fixture.path("work"))
            archive-push-ahead = 0
            """
        // None of the files was changed just now.
        let time = ManualTime(now: SystemTimeSource().now().adding(seconds: 10))
        func push(_ limit: [String] = []) -> ToolRun {
            ToolRun(
                ["archive-push", fixture.path("pg_wal/" + names[0]).description] + limit,
                files: ["/etc/kedge/kedge.conf": file],
                changing: { surroundings in
                    surroundings.time = time
                    surroundings.host = HostFacts(processors: 1, userID: geteuid())
                })
        }
        let first = push()
        #expect(first.ending == .exit(0), "\(first.errors)")
        try FileSystem.rename(repository, to: fixture.path("away"))
        #expect(push().ending == .exit(1))
        let above = push(["--archive-queue-limit", "1MB"])
        #expect(above.ending == .exit(0) && above.errors.isEmpty, "\(above.errors)")
    }

    @Test("above archive-queue-limit a push that hangs is ended, so that the next one can give its segment up")
    func hangingPush() throws {
        let fixture = try ArchiveFixture()
        let names = (1...5).map { "00000001000000000000000\($0)" }
        _ = try Directory.create(at: fixture.path("pg_wal/archive_status"))
        @Sendable func makeReady(_ names: ArraySlice<String>) {
            for name in names {
                do { try fixture.write("pg_wal/archive_status/\(name).ready", []) } catch { Issue.record(error) }
            }
        }
        makeReady(names[..<4])
        let file = """
            [repository main]
            path = \(fixture.path("repository"))
            encryption = aes-256-gcm
            passphrase-command = hang
            [cluster c]
            pgdata = \(fixture.directory.path)
            work-directory = \(fixture.path("work"))
            archive-queue-limit = 4MB
            """
        let ended = Monitor(false)
        let interruption = Interruption()
        let run = ToolRun(
            ["archive-push", fixture.path("pg_wal/" + names[0]).description],
            files: ["/etc/kedge/kedge.conf": file], interruption: interruption,
            runShell: { (_: String) throws(KedgeError) in
                // While it hangs, the server writes on.
                makeReady(names[4...])
                guard ended.wait(atMost: .seconds(60), { $0 ? true : nil }) != nil else {
                    throw KedgeError(.defect, "nobody has ended it")
                }
                try interruption.checkpoint()
                throw KedgeError(.defect, "it was not interrupted")
            },
            changing: { surroundings in
                surroundings.queueWatch.patience = .zero
                surroundings.queueWatch.interval = .milliseconds(2)
                surroundings.queueWatch.end = {
                    interruption.request(signal: 15)
                    ended.update { $0 = true }
                }
            })
        #expect(run.ending == .exit(1))
        #expect(
            run.errors.hasPrefix(
                "kedge: warn: gave up waiting for the repositories with \"\(fixture.path("pg_wal/" + names[0]))\": 5 "
                    + "MB wait, which is more than archive-queue-limit allows; find out what hangs\n"), "\(run.errors)")
        #expect(run.errors.contains("code: interrupted"), "\(run.errors)")
    }

    @Test("above archive-queue-limit a segment goes where it can, and a repository that hung is not asked again first")
    func healthyRepositoryFirst() throws {
        let fixture = try ArchiveFixture()
        let repository = fixture.path("repository").description
        try LocalStore.createRoot(at: repository)
        let store = try LocalStore(at: repository, marker: nil, random: SystemRandomSource())
        _ = try fixture.makeRepository(in: store)
        let names = try fixture.writeSegments(count: 5)
        _ = try Directory.create(at: fixture.path("pg_wal/archive_status"))
        for name in names { try fixture.write("pg_wal/archive_status/\(name).ready", []) }
        let file = """
            [repository offsite]
            path = \(fixture.path("offsite"))
            encryption = aes-256-gcm
            passphrase-command = hang
            [repository main]
            path = \(repository)
            encryption = none
            [cluster main]
            pgdata = \(fixture.directory.path)
            repositories = offsite, main
            work-directory = \(fixture.path("work"))
            archive-queue-limit = 3MB
            archive-push-ahead = 0
            """
        let calls = Monitor(0)
        func push(hangs: Bool) -> ToolRun {
            let (ended, interruption) = (Monitor(false), Interruption())
            return ToolRun(
                ["archive-push", fixture.path("pg_wal/" + names[0]).description],
                files: ["/etc/kedge/kedge.conf": file], interruption: interruption,
                runShell: { (_: String) throws(KedgeError) in
                    calls.update { $0 += 1 }
                    _ = ended.wait(atMost: .seconds(60)) { $0 ? true : nil }
                    try interruption.checkpoint()
                    throw KedgeError(.defect, "it was not interrupted")
                },
                changing: { surroundings in
                    surroundings.host = HostFacts(processors: 4, userID: getuid())
                    surroundings.queueWatch.patience = hangs ? .zero : .seconds(600)
                    surroundings.queueWatch.interval = .milliseconds(2)
                    surroundings.queueWatch.end = {
                        interruption.request(signal: 15)
                        ended.update { $0 = true }
                    }
                })
        }
        let hung = push(hangs: true)
        #expect(hung.ending == .exit(1) && hung.errors.contains("code: interrupted"), "\(hung.errors)")
        let next = push(hangs: false)
        #expect(next.ending == .exit(0), "\(next.errors)")
        #expect(calls.update { $0 } == 1)
        let told = "GAVE UP WAL file \"\(names[0])\": it is archived in main alone, "
        #expect(next.errors.contains(told), "\(next.errors)")
        var stored: [String] = []
        try store.forEachObject(below: nil) { stored.append(String($0.name.lastComponent)) }
        #expect(stored.contains(names[0]))
        #expect(try FileSystem.exists(fixture.path("work/spool/main/given-up/\(fixture.system)-\(names[0])")))
    }
}
