// What archive-get answers in every situation that a server can be in, whatever is wrong: the built binary as a
// process, with a repository and a data directory, and no server (docs/design.md section 5, lessons 28 and 29).
import Glibc
import KedgeCore
import KedgePostgres
import KedgeTestSupport
import Testing

@Suite struct OutageStatusTests {
    /// A data directory with four archived segments, 5 to 8, of which 7 was lost, and the history of timeline 2, which
    /// branched off in the middle of segment 6.
    private final class Archive {
        let fixture: ArchiveFixture
        let directory: TemporaryDirectory
        let names: [String]
        var configuration: String { directory("kedge.conf") }
        var repository: String { directory("repository") }
        static let end = "000000010000000000000009"
        static let hole = "000000010000000000000007"

        init() throws {
            fixture = try ArchiveFixture()
            directory = try TemporaryDirectory()
            names = try fixture.writeSegments(count: 4)
            try write(
                "kedge.conf",
                """
                [repository main]
                path = \(directory("repository"))
                encryption = aes-256-gcm
                key-file = \(directory("main.key"))
                [repository other]
                path = \(directory("elsewhere"))
                encryption = aes-256-gcm
                key-file = \(directory("other.key"))
                [cluster main]
                pgdata = \(fixture.directory.path)
                repositories = main
                archive-get-timeout = 0s
                [cluster other]
                pgdata = \(fixture.directory.path)
                repositories = other
                """)
            try fixture.write("pg_wal/00000002.history", Array("1\t0/680000\tbefore\n".utf8))
            try sh("chown -R --reference=. .", in: fixture.directory.path)
            try run(["--cluster", "main", "init", "--generate-key", directory("main.key")])
            try run(["--cluster", "other", "init", "--generate-key", directory("other.key")])
            for name in names + ["00000002.history"] {
                try run(["--cluster", "main", "archive-push", "pg_wal/" + name])
            }
            try sh("find repository -name '\(Archive.hole)*' -delete")
            try sh("rm -r pg_wal/*", in: fixture.directory.path)
        }

        func write(_ name: String, _ text: String) throws {
            var command = ServerUser.command(["sh", "-c", "cat > \"$1\"", "sh", directory(name)])
            command.input = Array((text + "\n").utf8)
            try ServerUser.run(command)
        }

        /// Runs a shell command as root where we are root, in the directory of the repository or another.
        func sh(_ script: String, in path: String? = nil) throws {
            var command = Subprocess(["sh", "-c", script])
            command.workingDirectory = path ?? directory.path
            let outcome = try command.run()
            guard outcome.status.isSuccess else { throw KedgeError(.defect, "\(script): \(outcome.errorText)") }
        }

        private func run(_ arguments: [String]) throws {
            let outcome = try KedgeBinary.run(
                ["--config", configuration] + arguments, workingDirectory: fixture.directory.path)
            guard outcome.status.isSuccess else { throw KedgeError(.defect, "\(arguments): \(outcome.errorText)") }
        }

        /// Asks for a file as a server in this situation does.
        func get(_ name: String, _ situation: Situation, _ answer: String?) throws -> Subprocess.Outcome {
            let arguments = ["--cluster", "main", "archive-get", name, "pg_wal/RECOVERYXLOG"]
            return try KedgeBinary.run(
                ["--config", configuration] + arguments + (answer.map { ["--on-unavailable", $0] } ?? []),
                workingDirectory: fixture.directory.path)
        }

        /// Makes the data directory that of a server in this situation.
        func prepare(_ situation: Situation) throws {
            try sh("rm -f *.signal", in: fixture.directory.path)
            guard let file = situation.file else { return }
            try ServerUser.run(["touch", fixture.directory(file)])
        }
    }

    private enum Situation: CaseIterable {
        case recovery, standby, noSignalFile

        var file: String? {
            switch self {
            case .recovery: "recovery.signal"
            case .standby: "standby.signal"
            case .noSignalFile: nil
            }
        }

        /// What every failure ends with.
        func failure(_ answer: String?) -> Int32 {
            switch answer {
            case "abort": 126
            case "absent": 1
            default: self == .standby ? 1 : 126
            }
        }
    }

    /// What goes wrong, as shell commands in the directory of the repository, and the error's code.
    private struct Breakage {
        let name: String
        let damage: String
        let mend: String
        let code: String
        /// The file that is asked for: one that is archived, unless something else is said.
        var file = "000000010000000000000006"

        static let all = [
            Breakage(
                name: "repository away", damage: "mv repository away", mend: "mv away repository",
                code: "repository-unavailable"),
            Breakage(
                name: "mount point empty", damage: "mv repository away; mkdir repository; chmod 755 repository",
                mend: "rmdir repository; mv away repository", code: "not-found"),
            Breakage(
                name: "no permission", damage: "chmod 0 repository", mend: "chmod 700 repository", code: "permission"),
            Breakage(
                name: "no permission for the log directory",
                damage: "find repository -name 00000000 -exec chmod 0 {} +",
                mend: "find repository -name 00000000 -exec chmod 700 {} +", code: "permission"),
            Breakage(
                name: "no permission for the log directory, at the end",
                damage: "find repository -name 00000000 -exec chmod 0 {} +",
                mend: "find repository -name 00000000 -exec chmod 700 {} +", code: "permission", file: Archive.end),
            Breakage(
                name: "cluster away", damage: "mv repository/main away", mend: "mv away repository/main",
                code: "not-found", file: Archive.end),
            Breakage(
                name: "keys away", damage: "mv repository/key away", mend: "mv away repository/key",
                code: "key-missing"),
            Breakage(
                name: "key file gone", damage: "mv main.key away", mend: "mv away main.key", code: "configuration"),
            Breakage(
                name: "key file gone, at the end", damage: "mv main.key away", mend: "mv away main.key",
                code: "configuration", file: Archive.end),
            Breakage(
                name: "wrong key", damage: "mv main.key away; cp -p other.key main.key", mend: "mv away main.key",
                code: "key-wrong", file: Archive.end),
            Breakage(
                name: "unsafe key file", damage: "chmod 644 main.key", mend: "chmod 600 main.key", code: "key-unsafe"),
            Breakage(
                name: "configuration gone", damage: "mv kedge.conf away", mend: "mv away kedge.conf",
                code: "configuration"),
            Breakage(
                name: "configuration broken", damage: "cp -p kedge.conf away; echo 'colour = red' >> kedge.conf",
                mend: "mv away kedge.conf", code: "configuration", file: "00000003.history"),
            Breakage(
                name: "damaged object",
                damage: "f=$(find repository -name 000000010000000000000006); cp -p $f away; "
                    + "b=$(od -An -tu1 -j5000 -N1 $f); "
                    + "printf \"\\\\$(printf %o $(((b + 1) % 256)))\" "
                    + "| dd of=$f bs=1 seek=5000 conv=notrunc status=none",
                mend: "cp -p away $(find repository -name 000000010000000000000006); rm away", code: "damaged"),
            Breakage(
                name: "cut object",
                damage: "f=$(find repository -name 000000010000000000000006); cp -p $f away; truncate -s -100 $f",
                mend: "cp -p away $(find repository -name 000000010000000000000006); rm away", code: "damaged"),
            Breakage(
                name: "empty object",
                damage: "f=$(find repository -name 000000010000000000000006); cp -p $f away; truncate -s 0 $f",
                mend: "cp -p away $(find repository -name 000000010000000000000006); rm away", code: "damaged"),
            Breakage(
                name: "swapped objects",
                damage: "f=$(find repository -name 000000010000000000000006); cp -p $f away; cp ${f%6}5 $f",
                mend: "cp -p away $(find repository -name 000000010000000000000006); rm away", code: "damaged"),
            Breakage(name: "hole", damage: ":", mend: ":", code: "wal-gap", file: Archive.hole),
        ]
    }

    @Test("whatever is wrong is 126, on a standby 1; what is proven is 0 or 1; on-unavailable overrides (lesson 29)")
    func table() throws {
        let archive = try Archive()
        let proven: [(file: String, status: Int32)] = [
            (archive.names[1], 0), (Archive.end, 1), ("00000002.history", 0), ("00000003.history", 1),
        ]
        for situation in Situation.allCases {
            try archive.prepare(situation)
            for answer in [nil, "abort", "absent"] {
                for (file, status) in proven {
                    let outcome = try archive.get(file, situation, answer)
                    #expect(outcome.status == .exited(status), "\(situation), \(answer ?? "-"), \(file)")
                    #expect(outcome.errorText.isEmpty)
                }
            }
        }
        for breakage in Breakage.all {
            try archive.sh(breakage.damage)
            for situation in Situation.allCases {
                try archive.prepare(situation)
                for answer in [nil, "abort", "absent"] {
                    let outcome = try archive.get(breakage.file, situation, answer)
                    let about: Comment = "\(breakage.name), \(situation), \(answer ?? "-"): \(outcome.errorText)"
                    #expect(outcome.status == .exited(situation.failure(answer)), about)
                    #expect(outcome.errorText.hasSuffix("code: \(breakage.code)\n"), about)
                }
            }
            try archive.sh(breakage.mend)
            let whole = try archive.get(archive.names[1], .noSignalFile, nil)
            #expect(whole.status == .exited(0), "after \(breakage.name): \(whole.errorText)")
        }
    }

    @Test("during an outage a standby is never told that a timeline which it knows has no history")
    func historiesOnStandby() throws {
        let archive = try Archive()
        try archive.prepare(.standby)
        try archive.sh("mv repository away")
        let wal = archive.fixture.directory("pg_wal")
        // (what lies in pg_wal, status for 00000003.history)
        for (file, status) in [
            (nil, 1), ("00000003.history", 1), ("00000002.history", 1), ("000000030000000000000007", 126),
            ("000000040000000000000007", 126), ("00000004.history", 126),
        ] as [(String?, Int32)] {
            if let file { try ServerUser.run(["touch", wal + "/" + file]) }
            let outcome = try archive.get("00000003.history", .standby, nil)
            #expect(outcome.status == .exited(status), "\(file ?? "nothing")")
            try archive.sh("rm -f \(wal)/0*")
        }
        // What the server has itself it is sent to, in every situation: the end of a recovery asks without a signal
        // file.
        try ServerUser.run(["touch", wal + "/00000003.history"])
        for situation in Situation.allCases {
            try archive.prepare(situation)
            for file in ["00000001.history", "00000003.history"] {
                #expect(try archive.get(file, situation, nil).status == .exited(1), "\(situation), \(file)")
            }
            #expect(try archive.get("00000004.history", situation, nil).status == .exited(situation.failure(nil)))
        }
    }

    // MARK: Branches

    @Test("a segment that a branch shows to have existed is a hole, although nothing later is archived")
    func holeBeforeBranch() throws {
        let archive = try Archive()
        try archive.prepare(.recovery)
        try archive.sh("find repository -name '00000001000000000000000[568]*' -delete")
        // Timeline 2 left it in the middle of segment 6.
        let before = try archive.get("000000010000000000000005", .recovery, nil)
        #expect(before.status == .exited(126))
        #expect(before.errorText.contains("timeline 2 branched off behind it, says \"00000002.history\""))
        #expect(try archive.get("000000010000000000000006", .recovery, nil).status == .exited(1))
        #expect(try archive.get("000000010000000000000009", .recovery, nil).status == .exited(1))
    }

    @Test("a server gets no WAL from behind the point where its history left a timeline")
    func branchThatIsNotFollowed() throws {
        let archive = try Archive()
        let (data, size, left) = (archive.fixture.directory.path, 1 << 20, 0x80000)
        let names = archive.names
        func fetched() throws -> [UInt8] {
            try FileDescriptor.open(RawPath(data + "/pg_wal/RECOVERYXLOG"), .read).readAll(limit: 64 << 20)
        }
        func follow(_ line: String, _ situation: Situation = .recovery) throws {
            try archive.prepare(situation)
            try archive.sh(
                "printf '%s\\n' \"recovery_target_timeline = '7'\" \"\(line)\" > postgresql.auto.conf", in: data)
            try archive.sh("chmod 644 postgresql.auto.conf", in: data)
        }
        try archive.prepare(.recovery)
        #expect(try archive.get(names[1], .recovery, nil).status == .exited(0))
        let whole = try fetched()
        #expect(whole.count == size && whole[left...].contains { $0 != 0 })
        // The server keeps the history that it follows in pg_wal.
        try archive.sh("printf '1\\t0/680000\\tbefore\\n' > pg_wal/00000002.history; chmod 644 pg_wal/*", in: data)
        for (line, situation) in [
            ("recovery_target_timeline = '2'", Situation.recovery), ("Recovery_target_timeline=2 # two", .standby),
            ("recovery_target_timeline = 'latest'", .standby), ("recovery_target_timeline = 'latest'", .recovery),
        ] {
            try follow(line, situation)
            #expect(try archive.get(names[0], situation, nil).status == .exited(0))
            #expect(try archive.get(names[1], situation, nil).status == .exited(0), "\(line)")
            let cut = try fetched()
            #expect(cut.count == size)
            #expect(cut[..<left] == whole[..<left])
            #expect(cut[left...].allSatisfy { $0 == 0 }, "\(line)")
            // Segment 8 lies behind the switch point as a whole, and of timeline 2 nothing is archived.
            let foreign = try archive.get(names[3], situation, nil)
            #expect(foreign.status == .exited(1))
            #expect(foreign.errorText.contains("is of no use to the server: it follows timeline 2 there"))
        }
        // Along timeline 1 itself, and where nobody can tell, a segment is what was archived.
        for (line, situation) in [
            ("recovery_target_timeline = '1'", Situation.recovery), ("recovery_target_timeline = '02'", .recovery),
            ("recovery_target_timeline = 'current'", .standby), ("# nothing", .recovery),
            ("recovery_target_timeline = '2'", .noSignalFile),
        ] {
            try follow(line, situation)
            #expect(try archive.get(names[1], situation, nil).status == .exited(0))
            #expect(try fetched() == whole, "\(line)")
            #expect(try archive.get(names[3], situation, nil).status == .exited(0), "\(line)")
        }
    }

    // MARK: Signals

    @Test("where our caller ignores the end of children, the status of a passphrase-command is known all the same")
    func ignoredChildren() throws {
        let archive = try Archive()
        try archive.prepare(.recovery)
        try archive.sh("sed -i 's|^key-file = .*main.key|passphrase-command = exit 7|' kedge.conf")
        var command = try KedgeBinary.command(
            ["--config", archive.configuration, "--cluster", "main", "archive-get", archive.names[1], "x"],
            workingDirectory: archive.fixture.directory.path)
        for ignoring in [[], ["env", "--ignore-signal=CHLD"]] {
            command.arguments = ignoring + command.arguments
            let outcome = try command.run()
            #expect(outcome.status == .exited(126))
            #expect(outcome.errorText.contains("It ended with status 7."), "\(outcome.errorText)")
        }
    }

    @Test("ended by SIGTERM while it is stalled, archive-get dies by that signal, and soon")
    func stalled() throws {
        let archive = try Archive()
        try archive.prepare(.recovery)
        try archive.sh("sed -i 's|^key-file = .*main.key|passphrase-command = sleep 300|' kedge.conf")
        let arguments = ["--config", archive.configuration, "--cluster", "main", "archive-get", archive.names[1], "x"]
        var process = try KedgeBinary.command(arguments, workingDirectory: archive.fixture.directory.path)
            .start(output: .discarded, errors: .discarded)
        while !(readTextFile("/proc/\(process.id)/task/\(process.id)/children") ?? "").contains(where: \.isNumber) {
            guard try process.wait(timeout: .milliseconds(5)) == nil else { break }
        }
        process.kill(SIGTERM)
        #expect(try process.wait(timeout: .seconds(20)) == .signalled(SIGTERM))
    }
}
