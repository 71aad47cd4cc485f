// What a BI tool does over JDBC: describes, prepares, binds, reads. One line for each thing found; test_jdbc.py checks.
//   java -cp postgresql.jar Client.java <url> <vector> <another vector> [<statement> <parameter>...]...

import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Types;
import java.util.Properties;
import org.postgresql.PGStatement;

public class Client {
    public static void main(String[] given) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", "postgres");
        try (Connection connection = DriverManager.getConnection(given[0], properties)) {
            types(connection, given[1]);
            prepared(connection, given[1], given[2]);
            filters(connection, given[1]);
            named(connection);
            described(connection);
            transaction(connection, given[1]);
            for (int at = 3; at < given.length;) {
                at = called(connection, given, at);
            }
            refused(connection);
        }
    }

    static void types(Connection connection, String vector) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM passages_search(?::vector, ?)")) {
            statement.setString(1, vector);
            statement.setInt(2, 3);
            try (ResultSet rows = statement.executeQuery()) {
                ResultSetMetaData columns = rows.getMetaData();
                for (int n = 1; n <= columns.getColumnCount(); n++) {
                    System.out.println("column " + columns.getColumnName(n) + " " + columns.getColumnClassName(n));
                }
                while (rows.next()) {
                    int id = rows.getInt("id");
                    double distance = rows.getDouble("distance");
                    double similarity = (Double) rows.getObject("similarity");
                    System.out.println("row " + id + " " + distance + " " + similarity + " " + rows.getInt("rank") + " "
                        + rows.getInt("requested") + " " + rows.getInt("returned"));
                }
            }
        }
    }

    // after five executions the driver prepares on the server, and the server may plan generically
    static void prepared(Connection connection, String one, String other) throws SQLException {
        String text = "SELECT id FROM passages_search(query => ?, k => ?, exact => ?, package => ?)";
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            for (int n = 1; n <= 12; n++) {
                statement.setObject(1, n % 2 == 1 ? one : other, Types.OTHER);
                statement.setInt(2, n);
                statement.setBoolean(3, true);
                if (n % 3 == 0) {
                    statement.setNull(4, Types.VARCHAR);
                } else {
                    statement.setString(4, "email");
                }
                boolean server = ((PGStatement) statement).isUseServerPrepare();
                System.out.println("prepared " + n + " " + server + ids(statement));
            }
        }
    }

    static void filters(Connection connection, String vector) throws SQLException {
        String text = "SELECT id FROM passages_search(?::vector, 5, 4000, length_min => ?, package_any => ?, tags_with => ?)";
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            Array packages = connection.createArrayOf("text", new Object[] {"asyncio", "email", "'; DROP TABLE passages; --"});
            statement.setString(1, vector);
            statement.setInt(2, 100);
            statement.setArray(3, packages);
            statement.setNull(4, Types.ARRAY);
            System.out.println("filters" + ids(statement));
        }
    }

    static void named(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM passages_search_named(?, ?)")) {
            statement.setString(1, "it's");
            statement.setInt(2, 4);
            System.out.println("named" + ids(statement));
        }
        String text = "SELECT s.id FROM passages AS p CROSS JOIN LATERAL passages_similar(p.id, ?) AS s WHERE p.id = ?";
        try (PreparedStatement statement = connection.prepareStatement(text)) {
            statement.setInt(1, 4);
            statement.setInt(2, 9);
            System.out.println("similar" + ids(statement));
        }
    }

    static void described(Connection connection) throws SQLException {
        DatabaseMetaData database = connection.getMetaData();
        try (ResultSet columns = database.getFunctionColumns(null, "public", "passages_search", "%")) {
            while (columns.next()) {
                System.out.println("argument " + columns.getString("COLUMN_NAME") + " " + columns.getString("TYPE_NAME"));
            }
        }
        try (ResultSet tables = database.getTables(null, "public", "passages_related%", null)) {
            while (tables.next()) {
                System.out.println("table " + tables.getString("TABLE_NAME") + " " + tables.getString("TABLE_TYPE"));
            }
        }
    }

    // a statement with its parameters, each bound as the type that the server says it has; where the next one begins
    static int called(Connection connection, String[] given, int at) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(given[at])) {
            ParameterMetaData parameters = statement.getParameterMetaData();
            for (int n = 1; n <= parameters.getParameterCount(); n++) {
                String value = given[at + n];
                switch (parameters.getParameterType(n)) {
                    case Types.INTEGER -> statement.setInt(n, Integer.parseInt(value));
                    case Types.DOUBLE -> statement.setDouble(n, Double.parseDouble(value));
                    case Types.VARCHAR -> statement.setString(n, value);
                    default -> statement.setObject(n, value, Types.OTHER);
                }
            }
            try (ResultSet rows = statement.executeQuery()) {
                ResultSetMetaData columns = rows.getMetaData();
                StringBuilder line = new StringBuilder("names");
                for (int n = 1; n <= columns.getColumnCount(); n++) {
                    line.append(' ').append(columns.getColumnName(n));
                }
                while (rows.next()) {
                    line.append("\nvalues");
                    for (int n = 1; n <= columns.getColumnCount(); n++) {
                        line.append(' ').append(rows.getObject(n));
                    }
                }
                System.out.println(line);
            }
            return at + 1 + parameters.getParameterCount();
        }
    }

    // a cursor: rows are fetched by twos
    static void transaction(Connection connection, String vector) throws SQLException {
        connection.setAutoCommit(false);
        try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM passages_search(?::vector, 30)")) {
            statement.setFetchSize(2);
            statement.setString(1, vector);
            System.out.println("cursor" + ids(statement));
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT current_setting('hnsw.ef_search')");
                ResultSet rows = statement.executeQuery()) {
            rows.next();
            System.out.println("setting " + rows.getString(1));
        }
        connection.commit();
        connection.setAutoCommit(true);
    }

    static void refused(Connection connection) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SELECT * FROM passages_search(?::vector, ?)")) {
            statement.setString(1, "[1,2,3]");
            statement.setInt(2, 10);
            statement.executeQuery();
        } catch (SQLException error) {
            System.out.println("refused " + error.getSQLState() + " " + error.getMessage().split("\n")[0]);
        }
    }

    static String ids(PreparedStatement statement) throws SQLException {
        StringBuilder found = new StringBuilder();
        try (ResultSet rows = statement.executeQuery()) {
            while (rows.next()) {
                found.append(' ').append(rows.getInt(1));
            }
        }
        return found.toString();
    }
}
