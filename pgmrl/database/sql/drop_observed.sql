-- What 0004 made. Settings and measurements are lost.
DROP VIEW pgmrl.health;
DROP TABLE pgmrl.recall_history;
DROP TABLE pgmrl.settings;
