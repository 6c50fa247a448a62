// What happens to a restore that is not alone: another restore into the same directory, or a server that is started
// there, at any moment.
import Glibc
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct RestoreCollisionTests {
    /// As `place.restore`, and calls `meanwhile` once, at a read from the repository while pg_control is away.
    private static func restore(
        _ place: DeltaPlace, delta: Bool, beforeWriting: () -> Void = {},
        meanwhile: @escaping @Sendable () -> Void = {}
    ) throws(KedgeError) -> Restore.Outcome {
        let isFirst = Monitor(true)
        let target = place.target
        let store = FaultyStore(place.repository.store) { operation in
            guard operation.kind == .read, access(target + "/kedge_restore.json", F_OK) == 0,
                access(target + "/global/pg_control", F_OK) != 0
            else { return nil }
            let isNow = isFirst.update { first in
                defer { first = false }
                return first
            }
            if isNow { meanwhile() }
            return nil
        }
        let source = RepositorySource(
            settings: place.repository.settings, openStore: { store }, createStore: { store })
        var options = Restore.Options(
            clusterName: "main", request: RestoreRequest(target: .immediate), pgdata: RawPath(target),
            configuredPgdata: "/nowhere", tablespaces: [16384: RawPath(place.tablespace)], action: .promote,
            restoreCommand: RestoreCommandLine(words: ["kedge"]), processMax: 2,
            workDirectory: RawPath(place.directory("work")))
        options.isDelta = delta
        return try Restore(source, options, walSources: [source]).run(beforeWriting: beforeWriting)
    }

    private static func error(_ body: () throws(KedgeError) -> Void) -> KedgeError? {
        do throws(KedgeError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    @Test(
        "while a restore is at work another one into that directory is refused, whatever either was asked for",
        arguments: [(false, true), (true, true), (true, false), (false, false)])
    func second(_ isDelta: (first: Bool, second: Bool)) throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        if isDelta.first {
            try place.run("rm", place.target + "/base/1/1259")
        } else {
            try place.run("rm", "-rf", place.target, place.tablespace)
        }
        let refusals = Monitor<[KedgeError?]>([])
        _ = try Self.restore(
            place, delta: isDelta.first,
            meanwhile: {
                let refusal = Self.error { () throws(KedgeError) in _ = try place.restore(delta: isDelta.second) }
                refusals.update { $0.append(refusal) }
            })
        let found = refusals.update { $0 }
        #expect(
            found.map { $0?.description } == [
                """
                cannot restore into directory "\(place.target)": another restore is at work there
                code: locked
                detail: Another kedge process has locked the directory.
                hint: Wait until that restore has ended, or end it, and run the command again.
                """
            ])
        // The mark of the first is gone as well, and with it the lock.
        #expect(try place.look() == whole)
        _ = try place.restore(delta: true)
    }

    @Test("a dry run locks nobody out, and is not locked out")
    func dryRun() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let refusals = Monitor<[KedgeError?]>([])
        try place.run("rm", place.target + "/base/1/1259")
        _ = try Self.restore(
            place, delta: true,
            meanwhile: {
                let refusal = Self.error { () throws(KedgeError) in _ = try place.restore(delta: true, dryRun: true) }
                refusals.update { $0.append(refusal) }
            })
        #expect(refusals.update { $0 }.map { $0?.code } == [nil])
    }

    @Test("a directory that was absent when it was judged is judged again when it is there")
    func overtaken() throws {
        let place = try DeltaPlace(large: false)
        var first: [String: String]?
        let refusal = Self.error { () throws(KedgeError) in
            _ = try Self.restore(
                place, delta: false,
                beforeWriting: {
                    first = try? { () throws in
                        _ = try place.restore(delta: false)
                        return try place.look()
                    }()
                })
        }
        #expect(refusal?.code == .notEmpty)
        #expect(refusal?.message.hasSuffix("it is not empty any more") == true)
        #expect(try place.look() == first)
    }

    @Test(
        "a server that is started when pg_control is away already ends a restore that has to be finished, and says so",
        .enabled(if: SystemCallFaults.isAvailable, "needs seccomp(2) with user notification"))
    func lateServer() throws {
        let place = try DeltaPlace(large: false)
        _ = try place.restore(delta: false)
        let whole = try place.look()
        // Its mode is the first thing that is put right once pg_control is away.
        chmod(place.target, 0o750)
        let control = place.target + "/global/pg_control"
        let lock = place.target + "/postmaster.pid"
        let run = try SystemCallFaults.run(
            { call in
                guard call.kind == .changeMode, access(control, F_OK) != 0, access(lock, F_OK) != 0 else { return nil }
                close(creat(lock, 0o600))
                return nil
            }
        ) { () throws(KedgeError) in try place.restore(delta: true) }
        let error = #expect(throws: KedgeError.self) { try run.result.get() }
        #expect(error?.code == .serverRunning)
        #expect(error?.message == "could not finish the restore into directory \"\(place.target)\"")
        #expect(error?.detail == "What was written is incomplete, and no server will start on it.")
        #expect(error?.hint?.hasPrefix("Run the command again: it goes on where this one has stopped.") == true)
        #expect(error?.cause?.detail == "It holds postmaster.pid.")
        try place.run("rm", lock)
        _ = try place.restore(delta: true)
        #expect(try place.look() == whole)
    }
}
