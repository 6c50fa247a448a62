// The real world behind `Surroundings`.
import Glibc
import KedgeArchive
import KedgeCore

extension Surroundings {
    /// The process's own environment, host, files and standard streams.
    package static var real: Surroundings {
        // Nobody is left to tell when standard error fails.
        let status = StatusLine { text in
            do { try StandardStream.error.write(Array(text.utf8)) } catch {}
        }
        var surroundings = Surroundings(
            environment: variables(),
            host: HostFacts(
                processors: sysconf(Int32(_SC_NPROCESSORS_ONLN)), userID: geteuid(), name: hostName(),
                executable: linkTarget("/proc/self/exe", otherwise: "kedge"),
                workingDirectory: linkTarget("/proc/self/cwd", otherwise: "/")),
            readFile: SmallFile.read, runShell: runShell, fileExists: { access($0, F_OK) == 0 },
            listDirectory: { path in
                do {
                    return try Directory.entries(at: RawPath(path)).map(\.name.description)
                } catch {
                    return nil
                }
            },
            writeOutput: { (bytes: [UInt8]) throws(KedgeError) in try StandardStream.output.write(bytes) },
            writeErrorLine: status.writeLine,
            terminal: StandardStream.error.isTerminal
                ? Terminal(status: status) { StandardStream.error.columns } : nil,
            time: SystemTimeSource(), random: SystemRandomSource(), interruption: .process)
        surroundings.keyMemory = { directories, warn in
            KeyNotes(in: directories, user: geteuid(), random: SystemRandomSource(), warn: warn)
        }
        surroundings.placeMemory = { place, directories, warn in
            PlaceNotes(of: place, in: directories, user: geteuid(), random: SystemRandomSource(), warn: warn)
        }
        // As if somebody else had asked: it stops at the next safe point, or is ended by force (Interruption.swift).
        surroundings.queueWatch.end = { _ = kill(getpid(), SIGTERM) }
        return surroundings
    }

    /// gethostname(2); "localhost" where it fails.
    private static func hostName() -> String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return name.withUnsafeBufferPointer { $0.baseAddress.map { String(cString: $0) } ?? "localhost" }
    }

    private static func linkTarget(_ link: RawPath, otherwise fallback: String) -> String {
        do throws(KedgeError) {
            return try FileSystem.symbolicLinkTarget(at: link).text ?? fallback
        } catch {
            return fallback
        }
    }

    /// A command that asks a person or a remote service gets a minute; a passphrase is short.
    private static func runShell(_ command: String) throws(KedgeError) -> Subprocess.Outcome {
        var shell = Subprocess(["/bin/sh", "-c", command])
        shell.timeout = .seconds(60)
        // A server that shuts down waits for its restore_command.
        shell.interruption = .process
        shell.outputLimitBytes = 64 << 10
        shell.interruption = .process
        return try shell.run()
    }

    /// Those that kedge looks at: its own, those of the tools of object stores, and where the user's files are.
    private static func variables() -> [EnvironmentVariable] {
        var variables: [EnvironmentVariable] = []
        var entry = environ
        while let text = entry.pointee {
            let isWanted =
                strncmp(text, "KEDGE_", 6) == 0 || strncmp(text, "AWS_", 4) == 0 || strncmp(text, "HOME=", 5) == 0
            if isWanted, let equals = strchr(text, Int32(UInt8(ascii: "="))) {
                let length = equals - text
                let name = UnsafeRawBufferPointer(start: text, count: length)
                variables.append(
                    EnvironmentVariable(
                        String(decoding: name, as: UTF8.self), String(cString: equals + 1)))
            }
            entry += 1
        }
        return variables
    }
}
