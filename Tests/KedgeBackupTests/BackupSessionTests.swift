// Proves on real servers that a backup whose database session dies while one big file is being copied ends in the midst
// of that file, says why, leaves nothing that looks like a backup, and that the next one works (lesson 40); and that
// two hosts do not back up one cluster at once.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgePostgres
import KedgeRepository
import KedgeTestSupport
import Synchronization
import Testing

@testable import KedgeBackup

@Suite(.serialized, .enabled(if: PostgresInstallation.serversAreEnabled, "needs servers: set KEDGE_TEST_SERVERS=1"))
struct BackupSessionTests {
    /// What may happen to a session.
    enum Harm: String, CaseIterable, Sendable {
        case terminated, stoppedImmediately, restarted, hangs

        /// What the error tells of it.
        var words: [String] {
            switch self {
            case .terminated: ["terminating connection due to administrator command"]
            // The server's last words, if it got to say any.
            case .stoppedImmediately, .restarted:
                ["immediate shutdown", "administrator command", "server closed the connection", "Connection reset"]
            case .hangs: ["the server did not answer for 2 s"]
            }
        }
    }

    @Test("a session that dies ends the copy in the midst of a file", arguments: Harm.allCases)
    func sessionDies(_ harm: Harm) throws {
        let cluster = try BackupTestCluster()
        let server = cluster.server
        try server.psql("create table big as select i, repeat('x', 900) t from generate_series(1, 40000) i; checkpoint")
        let big = try server.value("select pg_relation_filenode('big')")
        let psql = cluster.psql
        let hungProcess = Mutex<Int32>(0)
        let pidFile = server.dataDirectory + "/postmaster.pid"
        let isDone = Mutex(false)
        var tools = try cluster.tools(
            files: ChangingFiles { (path, moment) throws(KedgeError) in
                guard case .read = moment, path.lastComponent == RawPath(big) else { return }
                let isFirst = isDone.withLock { done in
                    defer { done = true }
                    return !done
                }
                guard isFirst else { return }
                switch harm {
                case .terminated:
                    try psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'kedge'")
                case .stoppedImmediately, .restarted:
                    let text = readTextFile(pidFile) ?? ""
                    kill(Int32(text.prefix { $0 != "\n" }) ?? 0, harm == .restarted ? SIGINT : SIGQUIT)
                case .hangs:
                    try psql(
                        "copy (select pid from pg_stat_activity where application_name = 'kedge') to '\(pidFile).k'")
                    let process = Int32((readTextFile(pidFile + ".k") ?? "").prefix { $0 != "\n" }) ?? 0
                    hungProcess.withLock { $0 = process }
                    kill(process, SIGSTOP)
                }
            })
        tools.progress = WorkProgress()
        var options = cluster.options
        // Half a minute for the file; what is limited is only when the test ends if the code is wrong.
        options.readRateBytes = 1 << 20
        options.watching.answerLimit = .seconds(2)
        options.watching.session = SessionWatch.Intervals(look: .milliseconds(100), looksPerPing: 10)
        let error = #expect(throws: KedgeError.self) { try Backup(options, tools).run() }
        #expect(error?.code == .databaseUnavailable)
        #expect(error?.message == "the backup has failed: its database session is gone")
        let said = error?.cause?.detail ?? ""
        #expect(harm.words.contains { said.contains($0) }, "\(said)")
        let progress = tools.progress.snapshot
        #expect(progress.step == "copying files")
        #expect(progress.doneBytes < (progress.totalBytes ?? 0) / 2, "\(progress)")

        let hung = hungProcess.withLock { $0 }
        if hung > 0 { kill(hung, SIGCONT) }
        if harm == .stoppedImmediately || harm == .restarted {
            _ = try server.waitForExit()
            try server.start()
        }
        let catalog = BackupCatalog(try cluster.cluster())
        #expect(try catalog.list().backups.isEmpty)
        #expect(try catalog.intents().isEmpty)
        #expect(try Lease.all(in: cluster.cluster()).isEmpty)
        try server.wait(until: "select count(*) = 0 from pg_stat_activity where application_name = 'kedge'")
        let next = try cluster.backUp()
        #expect(next.warnings == [])
        #expect(try catalog.list().backups == [next.record])
    }

    @Test("what goes wrong while the server hangs is told at once, and as what it is")
    func otherError() throws {
        let cluster = try BackupTestCluster()
        let psql = cluster.psql
        let pids = cluster.server.dataDirectory + "/pids"
        let hungProcess = Mutex<Int32>(0)
        let tools = try cluster.tools(
            files: ChangingFiles { (path, _) throws(KedgeError) in
                guard path.lastComponent == "PG_VERSION" else { return }
                if hungProcess.withLock({ $0 }) == 0 {
                    try psql("copy (select pid from pg_stat_activity where application_name = 'kedge') to '\(pids)'")
                    let process = Int32((readTextFile(pids) ?? "").prefix { $0 != "\n" }) ?? 0
                    hungProcess.withLock { $0 = process }
                    kill(process, SIGSTOP)
                }
                throw KedgeError(.inputOutput, "the disk is broken")
            })
        var options = cluster.options
        options.watching.answerLimit = .seconds(3600)
        options.watching.session = SessionWatch.Intervals(look: .milliseconds(1), looksPerPing: 1)
        let error = #expect(throws: KedgeError.self) { try Backup(options, tools).run() }
        #expect(error?.code == .inputOutput)
        let hung = hungProcess.withLock { $0 }
        #expect(hung > 0)
        kill(hung, SIGCONT)
    }

    @Test("a second host is refused while the first is at it; where it is not, both backups are whole")
    func twoHosts() throws {
        let cluster = try BackupTestCluster()
        let second = cluster.scratch("work of the second")
        _ = try Directory.create(at: RawPath(second))
        var options = cluster.options
        options.hostName = "db2"
        options.workDirectory = RawPath(second)
        options.leaseHolder = ProcessIdentity(hostName: "db2", processID: 7)
        let (other, tools) = (options, try cluster.tools())
        let refusal = Mutex<KedgeError?>(nil)
        let taken = Mutex<Backup.Outcome?>(nil)
        let isDone = Mutex(false)
        let store = cluster.store
        let outcome = try cluster.backUp(
            files: ChangingFiles { (path, moment) throws(KedgeError) in
                let isFirst = isDone.withLock { done in
                    defer { done = true }
                    return !done
                }
                guard isFirst else { return }
                do throws(KedgeError) {
                    _ = try Backup(other, tools).run()
                } catch {
                    refusal.withLock { $0 = error }
                }
                // Somebody who knows better, or believes to, removes the lease.
                _ = try store.remove(["main/lease/backup"])
                let outcome = try Backup(other, tools).run()
                taken.withLock { $0 = outcome }
            })
        let error = try #require(refusal.withLock { $0 })
        #expect(error.code == .locked && error.code.exitStatus == 4)
        #expect(error.detail?.contains("process \(getpid()) of host \"test\" since ") == true)
        #expect(error.detail?.contains(", for \(outcome.record.label); it was renewed") == true)
        let both = try #require(taken.withLock { $0 })
        #expect(outcome.warnings == [] && both.warnings == [])
        let listed = try BackupCatalog(cluster.cluster()).list().backups
        #expect(Set(listed.map(\.label)) == [outcome.record.label, both.record.label])
        let restored = try cluster.restore(outcome.record)
        try restored.start()
        try restored.wait(until: "select not pg_is_in_recovery()")
    }

    @Test("a store that takes no leases does not stop a backup; it says so")
    func withoutLease() throws {
        let cluster = try BackupTestCluster()
        let faulty = FaultyStore(cluster.store, code: .permission) { operation in
            operation.name.contains("main/lease/") ? .failBefore : nil
        }
        var options = cluster.options
        options.repository = cluster.source(in: faulty)
        let outcome = try Backup(options, cluster.tools()).run()
        #expect(outcome.warnings.count == 1)
        #expect(outcome.warnings.first?.hasPrefix("The backup was taken without a lease: could not do") == true)
    }
}
