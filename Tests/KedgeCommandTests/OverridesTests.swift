// Proves that a command line for others carries what the environment and the options said of the repositories.
import KedgeCore
import Testing

@testable import KedgeCommand

@Suite struct OverridesTests {
    private static let file = """
        [cluster main]
        pgdata = /pg
        repositories = one, two-b

        [repository one]
        path = /wrong
        encryption = none

        [repository two-b]
        path = /two
        encryption = none

        [repository other]
        path = /other
        encryption = none

        """

    private func load(_ words: [String], _ environment: [EnvironmentVariable] = []) throws -> Configuration {
        let parser = ArgumentParser(
            commands: CommandTable.all.map(\.specification), configurationKeys: ConfigurationKey.all.map(\.name))
        guard case .run(_, let arguments) = try parser.parse(["restore"] + words) else { throw KedgeError(.usage, "x") }
        return try Configuration(
            arguments: arguments, environment: environment, host: testHost,
            readFile: reader(["/etc/kedge/kedge.conf": Self.file]))
    }

    @Test("options and variables are carried for their own repository, as variables that mean the same when read again")
    func carried() throws {
        let given = try load(
            ["--repository", "one", "--path", "/real/repo"],
            [
                .init("KEDGE_REPOSITORY_TWO_B_PATH", "/real two"), .init("KEDGE_PROCESS_MAX", "3"),
                .init("KEDGE_REPOSITORY_OTHER_PATH", "/elsewhere"),
            ])
        let carried = given.overridesForOthers(try given.cluster())
        #expect(
            carried.variables == ["KEDGE_REPOSITORY_ONE_PATH=/real/repo", "KEDGE_REPOSITORY_TWO_B_PATH=/real two"])
        #expect(carried.leftOut.isEmpty)
        let again = try load(
            [],
            carried.variables.map { text in
                let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
                return EnvironmentVariable(parts[0], parts[1])
            })
        #expect(again.warnings.isEmpty)
        #expect(again.repositories.compactMap(\.place.directory) == ["/real/repo", "/real two", "/other"])
    }

    @Test("what the file says is not carried, and a command that may hold a secret is named alone")
    func leftOut() throws {
        let plain = try load([])
        let nothing = plain.overridesForOthers(try plain.cluster())
        #expect(nothing.variables.isEmpty && nothing.leftOut.isEmpty)
        let given = try load(
            ["--repository", "one", "--encryption", "aes-256-gcm", "--passphrase-command", "echo geheim"])
        let (variables, leftOut) = given.overridesForOthers(try given.cluster())
        #expect(variables == ["KEDGE_REPOSITORY_ONE_ENCRYPTION=aes-256-gcm"])
        #expect(leftOut == ["\"passphrase-command\""])
    }
}
